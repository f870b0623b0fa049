"""What the report says and writes of a search, and of runs on held-out images in the table of others."""

from pathlib import Path

from adarem.plan.plan import Plan, make_plan
from adarem.report.load import load_sweep
from adarem.report.make import load_table, make
from adarem.report.selected import select_and_write
from adarem.report.tables import render
from adarem.report.tables.settings import fairness_sheet
from adarem.run.selection import read_selection
from tests.support.searches import held_out
from tests.support.sweeps import make_config

SEARCH = "{sgdm: {optimizer.lr: [0.1, 0.2, 0.4]}, adarem: {optimizer.lr: [0.1, 0.2, 0.4]}}"
GRID = ["grid=table2", "data=digits", "optimizer=sgdm,adarem"]


def searched(runs_dir: Path, unfinished: int = 0) -> Plan:
    plan = make_plan([*GRID, "grid.name=s", f"+grid.search={SEARCH}", "seeds=[1000]", f"runs_dir={runs_dir}"])
    plan.write()
    for planned, top1 in list(zip(plan.runs, [50.0, 60.0, 55.0, None, 70.0, 80.0], strict=True))[unfinished:]:
        held_out(plan.folder, planned.config, top1)
    return plan


def test_a_finished_search_ends_in_its_file(dirs) -> None:
    runs_dir, results_dir = dirs
    plan = searched(runs_dir)
    report = make(grid="s", runs_dir=runs_dir, results_dir=results_dir, data=None, scale=None)
    path = plan.folder / "selected.yaml"
    assert path in report.written and read_selection(path).selection.metric == "holdout_top1"
    assert "Selected in s-digits: highest holdout_top1 after the last epoch, mean over seeds" in report.text
    assert "  ResNet-18, SGDM: lr 0.2: 60.00, next best 55.00, 3 trials\n" in report.text
    at_the_edge = "lr 0.4: 80.00, next best 70.00, 3 trials, 1 of them diverged; at the highest optimizer.lr tried\n"
    assert f"  ResNet-18, AdaRem: {at_the_edge}" in report.text
    assert "Held-out top-1" in report.text and "57 held-out training images" in report.text
    problems = [line for line in report.text.splitlines() if line.startswith("Problem")]
    assert len(problems) == 1 and "diverged in epoch 1" in problems[0]
    before = path.read_bytes()
    make(grid="s", runs_dir=runs_dir, results_dir=results_dir, data=None, scale=None)
    assert path.read_bytes() == before
    # What takes the settings says so in its sheet.
    words = [*GRID, f"runs_dir={runs_dir}", f"grid.settings_from={path}"]
    final = make_plan(words)
    final.write()
    assert [r.config.optimizer.lr for r in final.runs] == [0.2, 0.4] and final.folder.name == "table2-digits-searched"
    sheet = fairness_sheet(load_table(final.folder, results_dir))
    assert [row[-1] for row in sheet.rows] == ["1 configuration; searched, 3 trials"] * 2
    assert any(note.endswith("how is under Selection.") for note in sheet.notes)
    assert make_plan([*GRID, f"runs_dir={runs_dir}"]).folder.name == "table2-digits"


def test_an_unfinished_search_selects_nothing(dirs) -> None:
    runs_dir, results_dir = dirs
    plan = searched(runs_dir, unfinished=2)
    report = make(grid="s", runs_dir=runs_dir, results_dir=results_dir, data=None, scale=None)
    assert "Nothing selected:" in report.text and "2 of 6 runs of the search are not finished" in report.text
    assert not (plan.folder / "selected.yaml").exists()


def test_a_sweep_that_is_no_search_ends_in_no_file(table2_runs) -> None:
    assert select_and_write(load_sweep(table2_runs)) is None


def test_a_held_out_figure_is_in_no_table_of_the_others(dirs, table2_runs) -> None:
    changed = {"data": {"holdout": 0.04}}
    config = make_config("resnet18", "sgdm", 0, overrides={"data.holdout": 0.04}, changed=changed)
    held_out(table2_runs, config, 99.25)
    table = load_table(table2_runs, dirs[1])
    run = next(r for r in table.sweep.runs if r.state == "held out")
    assert run.value("top1") is None and run.value("holdout_top1") == 99.25
    assert run.standing.kind == "variation"
    assert run.problems == ["evaluated on held-out training images, so this table has no figure of it"]
    assert "99.25" not in render.markdown(table)
    # The others' figures stay as they are.
    assert "70.60" in render.markdown(table)
