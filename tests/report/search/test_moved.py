"""Settings of one optimizer in another, next to that one's own."""

import dataclasses

from adarem.report.load import load_sweep
from adarem.report.make import load_table
from adarem.report.page.sections import sweep_section
from adarem.report.provenance import warnings
from adarem.report.search.moved import moved_settings
from adarem.report.tables import render
from adarem.run.sweep import read_sweep, write_sweep
from tests.support.sweeps import finish, make_config, write_grid

OWN = [71.0, 71.4, 71.2]
MOVED = [70.0, 70.6, 70.3]
SGDM = [69.0, 69.2, 69.4]


def searched(dirs, moved=MOVED):
    """Table 2 with three seeds, and AdaRem with SGDM's settings too."""
    folder = write_grid(dirs[0], seeds=[0, 1, 2])
    spec = read_sweep(folder)
    labels = dataclasses.replace(spec.labels, overrides={"lr=0.2": "settings of SGDM"})
    runs = [f"resnet18-{o}-s{s}" for o in ("sgdm", "adarem") for s in range(3)]
    runs += [f"resnet18-adarem-lr=0.2-s{s}" for s in range(3)]
    write_sweep(
        folder,
        dataclasses.replace(
            spec, settings_from="table2_search", settings_of={"adarem": "sgdm"}, labels=labels, metrics=("top1",),
            runs=tuple(runs), axes={**spec.axes, "optimizer": ("sgdm", "adarem")},
        ),
    )  # fmt: skip
    for seed in range(3):
        finish(folder, make_config("resnet18", "sgdm", seed), SGDM[seed])
        finish(folder, make_config("resnet18", "adarem", seed), OWN[seed])
        if moved:
            config = make_config("resnet18", "adarem", seed, overrides={"optimizer.lr": 0.2})
            finish(folder, config, moved[seed])
    return load_table(folder, dirs[1])


def test_moved_and_own_settings_are_next_to_each_other(dirs) -> None:
    table = searched(dirs)
    found = moved_settings(table)
    assert found is not None
    (row,) = found.rows
    assert row[:4] == ("ResNet-18", "Top-1", "AdaRem", "SGDM")
    assert row[4:] == ("69.20 ± 0.20", "70.30 ± 0.30 (lr 0.2)", "71.20 ± 0.20", "+0.90")
    assert found.notes[1].startswith("ResNet-18 Top-1, AdaRem: its own settings − SGDM's = +0.90 ± ")
    assert found.notes[2].startswith("ResNet-18 Top-1, AdaRem with SGDM's settings − SGDM = +1.10 ± ")
    text = render.markdown(table)
    assert "## Settings of another optimizer" in text and "AdaRem (settings of SGDM)" in text
    assert [part.heading for part in sweep_section(table, []).search] == ["Settings of another optimizer"]
    # Nobody planned SGDM with its own settings moved.
    screen = render.screen(table, 100)
    assert "0 of 3" not in screen and screen.count("  SGDM ") == 1 and screen.count("  AdaRem ") == 2


def test_settings_that_a_search_selected_may_differ_between_cells_and_not_within(dirs) -> None:
    folder = write_grid(dirs[0], seeds=[0, 1, 2], settings_from="table2_search")
    for model, lr in (("resnet18", 0.1), ("resnet50", 0.3)):
        for seed in (0, 1):
            finish(folder, make_config(model, "sgdm", seed, changed={"optimizer": {"lr": lr}}), 70.0 + seed)
    assert not [line for line in warnings(load_sweep(folder)) if "Cells differ" in line]
    finish(folder, make_config("resnet18", "sgdm", 2, changed={"optimizer": {"lr": 0.2}}), 71.0)
    (line,) = [line for line in warnings(load_sweep(folder)) if "Cells differ" in line]
    assert line.startswith(
        "Cells differ in optimizer.lr of SGDM on ResNet-18: 0.1 (resnet18-sgdm-s0, resnet18-sgdm-s1), 0.2"
    )


def test_without_moved_runs_there_is_no_such_part(dirs) -> None:
    assert moved_settings(searched(dirs, moved=[])) is None
