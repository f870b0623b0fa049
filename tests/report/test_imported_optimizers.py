"""Optimizers that the catalog does not know stand in every file of the report without a line of code."""

from pathlib import Path

import pytest

from adarem.report import make_report
from adarem.report.figures.curves import curves
from adarem.report.figures.panels import TRAIN_LOSS
from adarem.report.figures.style import of_optimizer
from adarem.report.load import load_sweep
from adarem.report.provenance import facts, warnings
from adarem.report.tables.table import build, read_paper
from adarem.run.catalog import OPTIMIZERS
from adarem.run.config import RunConfig, from_dict, to_dict
from tests.support.sweeps import finish, make_config, start, write_grid

NAMES = [f"my_package:Own{i}" for i in range(14)]


def config(name: str) -> RunConfig:
    hparams = {"betas": [0.9, 0.99], "mode": "plain", "floor": 0.0, "warm": False, "cap": None}
    optimizer = {"name": name, "label": name.partition(":")[2], "lr": 0.1, "weight_decay": 0.0, **hparams}
    raw = make_config("resnet18", "sgdm", data="digits")
    return from_dict(to_dict(raw) | {"optimizer": optimizer, "cell": f"resnet18-{name.replace(':', '_')}-s0"})


def sweep(runs_dir: Path) -> Path:
    axes = {"model": ["resnet18"], "optimizer": ["sgdm", *NAMES]}
    folder = write_grid(runs_dir, "table2", "digits", "rehearsal", axes=axes)
    finish(folder, make_config("resnet18", "sgdm", data="digits"), 95.0)
    for i, name in enumerate(NAMES):
        finish(folder, config(name), 80.0 + i)
    return folder


def test_colours_lines_and_markers_differ() -> None:
    styles = [of_optimizer(name, ["sgdm", *NAMES]) for name in (*OPTIMIZERS, *NAMES)]
    assert len({s.color for s in styles}) == len(styles) == len(OPTIMIZERS) + 14
    looks = [(s.line, s.marker) for s in styles]
    own = set(looks[len(OPTIMIZERS) :])
    assert len(own) == 14 and not own & set(looks[: len(OPTIMIZERS)])
    beyond = [of_optimizer(f"a:B{i}", [f"a:B{i}" for i in range(40)]) for i in range(40)]
    assert len({(s.color, s.line, s.marker) for s in beyond}) == 40


def test_a_legend_of_long_names_stays_within_its_figure_line_by_line(dirs: tuple[Path, Path]) -> None:
    names = [f"my_package:ScheduleFree{'Nesterov' * (i % 2)}SGD{i}" for i in range(7)]
    folder = write_grid(dirs[0], "table2", "digits", "rehearsal", axes={"model": ["resnet18"], "optimizer": names})
    for i, name in enumerate(names):
        finish(folder, config(name), 80.0 + i)
    table = build(load_sweep(folder), read_paper(load_sweep(folder).spec, dirs[1]))
    figure = curves(table, [TRAIN_LOSS], "Long names")
    figure.draw_without_rendering()
    legend = figure.legends[0]
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    assert box.y0 >= max(ax.bbox.y1 for ax in figure.axes)
    places = {t.get_text(): t.get_window_extent() for t in legend.get_texts()}
    read = sorted(places, key=lambda label: (-round(places[label].y0), places[label].x0))
    assert read == [name.partition(":")[2] for name in names]


def test_every_file_of_the_report_has_them(dirs: tuple[Path, Path]) -> None:
    sweep(dirs[0])
    made = make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1])
    (folder,) = (p for p in dirs[1].iterdir() if (p / "table.md").exists())
    table = (folder / "table.md").read_text()
    assert (
        "| Own0 | 0.1 (ours) × 0.25 | not stated | 0, how: not stated | betas [0.9,0.99], mode plain, floor 0.0 |"
        in table
    )
    assert "Own13 is my_package:Own13" in table
    for file in ("table.tex", "report.html", "time.md", "runs.csv"):
        assert "Own13" in (folder / file).read_text(), file
    assert (folder / "figures" / "figure4.svg").exists() and made.text


def test_where_they_come_from_stands_under_the_table(tmp_path: Path) -> None:
    folder = write_grid(tmp_path, "table2", "digits", "rehearsal")
    source = {
        "name": "my_package:Own0", "distribution": "my-package", "version": "1.2", "file": "own.py",
        "sha256": "ab" * 32, "commit": "c0ffee0123", "dirty": True,
    }  # fmt: skip
    run = finish(folder, config(NAMES[0]), 90.0)
    start(run, optimizer=source)
    found = {fact.what: fact.text for fact in facts(load_sweep(folder))}
    text = "Own0 from my_package:Own0, my-package 1.2, own.py (abababababab), commit c0ffee012 (dirty)"
    assert found["Imported optimizers"] == text
    start(run, optimizer=source | {"sha256": "cd" * 32})
    assert any("Cells of Own0 were made by different code" in line for line in warnings(load_sweep(folder)))


def test_networks_too(dirs: tuple[Path, Path]) -> None:
    folder = write_grid(dirs[0], "table2", "digits", "rehearsal")
    raw = make_config("resnet18", "sgdm", data="digits")
    model = {"name": "mine", "label": "My net", "class": "my_package:make_network", "kind": "images", "width": 16}
    own = from_dict(to_dict(raw) | {"model": model, "cell": "mine-sgdm-s0"})
    source = {"name": "my_package:make_network", "distribution": None, "file": "nets.py", "sha256": "ab" * 32}
    run = finish(folder, own, 90.0)
    start(run, network=source)
    found = {fact.what: fact.text for fact in facts(load_sweep(folder))}
    text = "My net from my_package:make_network, in no installed distribution, nets.py (abababababab)"
    assert found["Imported networks"] == text
    make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1])
    (made,) = (p for p in dirs[1].iterdir() if (p / "table.md").exists())
    table = (made / "table.md").read_text()
    assert "Networks imported by name: My net is my_package:make_network, width 16." in table
    assert "| My net Top-1 |" in table
    start(run, network=source | {"sha256": "cd" * 32})
    assert any("Cells of My net were made by different code" in line for line in warnings(load_sweep(folder)))


@pytest.mark.parametrize("record", [{}, {"optimizer": None}, {"optimizer": {"name": "a:B"}}])
def test_records_without_it_are_read(tmp_path: Path, record: dict[str, object]) -> None:
    folder = write_grid(tmp_path, "table2", "digits", "rehearsal")
    start(finish(folder, config(NAMES[0]), 90.0), **record)
    assert facts(load_sweep(folder)) and warnings(load_sweep(folder)) is not None


def test_a_schedule_of_its_own_is_said_and_no_warning(tmp_path: Path) -> None:
    folder = write_grid(tmp_path, "table2", "digits", "rehearsal")
    own = to_dict(config(NAMES[0]))
    own["schedule"] |= {"name": "constant"}
    own["train"] |= {"clip_grad_norm": 1.0}
    for run in (make_config("resnet18", "sgdm", data="digits"), make_config("resnet18", "adam", data="digits")):
        finish(folder, run, 95.0)
    finish(folder, from_dict(own), 90.0)
    found = {fact.what: fact.text for fact in facts(load_sweep(folder))}
    assert found["Own schedule"] == "Own0: constant learning rate, no warm-up, gradient clipped to norm 1"
    assert found["Scale"].endswith("cosine learning rate, no warm-up")
    assert not [line for line in warnings(load_sweep(folder)) if "schedule" in line or "clip" in line]


def test_a_later_setting_that_only_some_cells_have_is_warned_about(tmp_path: Path) -> None:
    folder = write_grid(tmp_path, "table2", "digits", "rehearsal", seeds=[0, 1])
    finish(folder, make_config("resnet18", "sgdm", data="digits"), 95.0)
    other = make_config("resnet18", "sgdm", 1, data="digits", changed={"schedule": {"min_lr": 0.001}})
    finish(folder, other, 95.0)
    (line,) = (line for line in warnings(load_sweep(folder)) if "min_lr" in line)
    assert line.startswith("Cells differ in schedule.min_lr of SGDM: ") and "its default (resnet18-sgdm-s0)" in line


@pytest.mark.parametrize(
    ("paper", "compare", "expected"),
    [
        # the paper's grids: AdaRem against each; a study: each against the first; what the grid names, against each
        (True, [], [("AdaRem", "SGDM"), ("AdaRem", "Adam"), ("AdaRem", "Own0")]),
        (False, [], [("Adam", "SGDM"), ("Own0", "SGDM"), ("AdaRem", "SGDM")]),
        (False, [NAMES[0]], [("Own0", "SGDM"), ("Own0", "Adam"), ("Own0", "AdaRem")]),
        (False, ["adam", NAMES[0]],
         [("Adam", "SGDM"), ("Adam", "Own0"), ("Adam", "AdaRem"), ("Own0", "SGDM"), ("Own0", "AdaRem")]),
        (False, ["not planned here"], [("Adam", "SGDM"), ("Own0", "SGDM"), ("AdaRem", "SGDM")]),
    ],
)  # fmt: skip
def test_comparisons_are_about_what_the_grid_names(
    paper: bool, compare: list[str], expected: list[tuple[str, str]], dirs: tuple[Path, Path]
) -> None:
    axes = {"model": ["resnet18"], "optimizer": ["sgdm", "adam", NAMES[0], "adarem"]}
    changed = {} if paper else {"name": "mine", "paper": None, "figure": None}
    folder = write_grid(dirs[0], "table2", "digits", "rehearsal", axes=axes, seeds=[0, 1], compare=compare, **changed)
    for seed in (0, 1):
        for i, name in enumerate(("sgdm", "adam", "adarem")):
            finish(folder, make_config("resnet18", name, seed, data="digits"), 80.0 + i + seed)
        own = to_dict(config(NAMES[0]))
        finish(folder, from_dict(own | {"seed": seed, "cell": f"own-s{seed}"}), 90.0 + seed)
    table = build(load_sweep(folder), read_paper(load_sweep(folder).spec, dirs[1]))
    found = [(c.first, c.second) for c in table.comparisons if "Top-1" in c.row]
    assert found == expected
    bold = {
        line.get_label() for line in curves(table, [TRAIN_LOSS], "").axes[0].get_lines() if line.get_linewidth() > 1.5
    }
    about = {"AdaRem"} if paper else {table.labels.optimizer(name) for name in compare if name in table.columns}
    assert {str(label).split(" (")[0] for label in bold} == about


def test_an_evaluation_at_an_average_is_said(tmp_path: Path) -> None:
    folder = write_grid(tmp_path, "table2", "digits", "rehearsal")
    run = finish(folder, config(NAMES[0]), 90.0)
    finish(folder, config(NAMES[1]), 90.0)
    result = run.result()
    result["evaluation"] = {**result["evaluation"], "point": "the optimizer's average", "batch_norm_batches": 64}
    result.pop("checksum", None)
    run.write_result(result)
    found = {fact.what: fact.text for fact in facts(load_sweep(folder))}
    assert found["Evaluated at their own average"] == "Own0, BatchNorm's statistics there over 64 training batches"
    assert "; or" not in found["Evaluation"]
