from pathlib import Path

import pytest

from adarem.report import compare, provenance
from adarem.report.load import load_sweep
from adarem.report.page.page import render
from adarem.report.tables import render as tables
from adarem.report.tables.table import build, read_paper
from adarem.run.directory import RunDir
from tests.support.sweeps import HASHES, finish, make_config, start, write_grid


def pair(dirs, first=None, second=None, **config):
    folder = write_grid(dirs[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.5, **(first or {}))
    finish(folder, make_config("resnet18", "adarem", **config), 71.5, **(second or {}))
    return load_sweep(folder)


def test_alike_runs_give_no_warning(dirs):
    assert provenance.warnings(pair(dirs)) == []


@pytest.mark.parametrize(
    ("second", "config", "words"),
    [
        (
            {"commit": "badc0de999"},
            {},
            "different commits: badc0de99 (resnet18-adarem-s0), c0ffee012 (resnet18-sgdm-s0)",
        ),
        ({"dirty": True}, {}, "uncommitted changes, so the commit does not name the code: resnet18-adarem-s0"),
        ({"world_size": 8}, {}, "different world sizes: 8 (resnet18-adarem-s0), 16 (resnet18-sgdm-s0)"),
        ({"hashes": HASHES | {"train": "d" * 64}}, {}, "different data"),
        ({}, {"changed": {"train": {"label_smoothing": 0.1}}}, "Cells differ in train.label_smoothing: 0.1"),
        ({}, {"changed": {"data": {"eval_resize": 240}}}, "Cells differ in data.eval_resize: 240"),
        ({}, {"overrides": {"optimizer.weight_decay": 5e-4}}, "weight decay 0.0005 (resnet18-adarem-"),
    ],
)
def test_what_may_not_be_alike_is_named(dirs, second, config, words):
    sweep = pair(dirs, second=second, **config)
    told = provenance.warnings(sweep)
    assert any(words in w for w in told), told
    assert words in tables.markdown(build(sweep, read_paper(sweep.spec, dirs[1])))


def test_optimizers_may_differ_from_each_other_but_not_from_themselves(dirs):
    folder = write_grid(dirs[0], seeds=[0, 1])
    finish(folder, make_config("resnet18", "adarem", 0), 71.0)
    finish(folder, make_config("resnet18", "adarem", 1, changed={"optimizer": {"beta": 0.99}}), 71.0)
    assert provenance.warnings(load_sweep(folder)) == [
        "Cells differ in optimizer.beta of AdaRem: 0.9 (resnet18-adarem-s0), 0.99 (resnet18-adarem-s1)"
    ]


def test_a_subset_of_the_genuine_set_is_named(dirs):
    folder = write_grid(dirs[0])
    run = finish(folder, make_config("resnet18", "sgdm"), 70.5)
    result = run.result()
    result["fingerprint"]["val"]["num_images"] = 49_000
    run.write_result(result)
    told = provenance.warnings(load_sweep(folder))
    assert any("val holds 49,000 images, ImageNet has 50,000" in w for w in told)
    assert any("evaluation counted 50,000 images of 49,000" in w for w in told)


def test_a_failed_run_keeps_its_reason_beside_other_problems(dirs):
    folder = write_grid(dirs[0])
    run = RunDir(folder / "resnet18-sgdm-s0")
    run.freeze(make_config("resnet18", "sgdm"))
    run.end_attempt(start(run), "failed", "CUDA out of memory")
    run.append_metrics({"epoch": "three", "split": 7})
    told = provenance.problems(load_sweep(folder))
    assert told == [
        "table2/resnet18-sgdm-s0: 1 unreadable line in metrics.jsonl",
        "table2/resnet18-sgdm-s0: failed: CUDA out of memory; see its log",
    ]


def test_cells_on_different_data_are_not_compared(dirs):
    other = {"hashes": HASHES | {"val": "e" * 64}}
    sweep = pair(dirs, second=other)
    t = build(sweep, read_paper(sweep.spec, dirs[1]))
    ours = {line.kind: line.texts for line in tables.lines(t)}["ours"]
    texts = dict(zip(t.columns, ours, strict=True))
    assert texts["sgdm"][0].endswith("[data A]") and texts["adarem"][0].endswith("[data B]")
    assert not any(bold for _, bold in ours)


def test_seeds_of_one_cell_on_different_data_have_no_mean(dirs):
    folder = write_grid(dirs[0], seeds=[0, 1])
    for seed, hashes in ((0, HASHES), (1, HASHES | {"train": "e" * 64})):
        finish(folder, make_config("resnet18", "sgdm", seed), 70.5, hashes=hashes)
        finish(folder, make_config("resnet18", "adarem", seed), 71.5 + seed)
    sweep = load_sweep(folder)
    t = build(sweep, read_paper(sweep.spec, dirs[1]))
    row = ("resnet18", "", "top1")
    assert (t.cell(row, "sgdm").ours, t.cell(row, "sgdm").difference) == ("mixed data", None)
    assert t.cell(row, "sgdm").verdict == "mixed data"
    assert tables.test_notes(t) == []


def test_runs_of_an_installed_package_have_a_version_and_no_commit(dirs):
    folder = write_grid(dirs[0])
    run = finish(folder, make_config("resnet18", "sgdm"), 70.5, commit=None)
    other = finish(folder, make_config("resnet18", "adam"), 70.5)
    assert facts(folder)["Commit"] == "c0ffee012"
    attempts = run.attempts_file.read_text()
    run.attempts_file.write_text(attempts.replace('"torch": "2.14.1"', '"torch": "2.14.1", "adarem": "0.1.0"'))
    assert set(facts(folder)["Commit"].split(", ")) == {"adarem 0.1.0", "c0ffee012"}
    (warning,) = (w for w in provenance.warnings(load_sweep(folder)) if "different commits" in w)
    assert "adarem 0.1.0 (resnet18-sgdm-s0)" in warning and "c0ffee012 (resnet18-adam-s0)" in warning
    shown = compare(run.path, other.path)
    assert "commit" in shown and "adarem 0.1.0" in shown and "None" not in shown
    sweep = load_sweep(folder)
    assert ">None<" not in render(build(sweep, read_paper(sweep.spec, dirs[1])), [])


def test_attempts_without_a_commit_are_no_runs_that_have_not_started(dirs):
    folder = write_grid(dirs[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.5, commit=None)
    assert facts(folder)["Commit"] == "none recorded"


def test_a_split_of_ones_own_stands_with_the_data(dirs):
    folder = write_grid(dirs[0])
    data = {"name": "birds", "label": "Birds", "val_share": 0.25, "split_seed": 3, "listing": "c0ffee"}
    finish(folder, make_config("resnet18", "sgdm", changed={"data": data}), 70.5)
    said = facts(folder)["Data"]
    assert said.startswith("Birds: 1,281,167 training images")
    assert said.endswith("0.25 of each class validates, split_seed 3")


def facts(folder: Path) -> dict[str, str]:
    return {fact.what: fact.text for fact in provenance.facts(load_sweep(folder))}
