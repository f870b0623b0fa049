"""Watched steps in the report: the figure, the CSV behind it, what bounds the reading, what cannot be read."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from adarem.report import steps
from adarem.report.figures.write import draw_figures
from adarem.report.make import load_table, write_sweep_results
from adarem.report.run import MOST_STEPS
from adarem.run.directory import RunDir
from tests.support.figures import texts
from tests.support.sweeps import finish, make_config, write_grid


def watch(run: RunDir, n: int, b: float | None = None, every: int = 50) -> None:
    """Writes ``n`` watched steps."""
    for k in range(1, n + 1):
        record = {"step": every * k, "loss": 2.0 / k, "lr": 0.1, "grad_norm": 3.0 / k, "weight_norm": 40.0}
        record |= {"update_norm": 0.4, "update_to_weight": 0.01 * k, "layers": {"fc": {"grad_norm": 1.0}}}
        run.append_step(record if b is None else record | {"b_positive": b, "b_mean": 0.01, "rate_spread": 0.1})


@pytest.fixture
def sweep(dirs: tuple[Path, Path]) -> Path:
    folder = write_grid(dirs[0], seeds=[0, 1])
    for seed in (0, 1):
        watch(finish(folder, make_config("resnet18", "sgdm", seed), 70.5), 300)
        watch(finish(folder, make_config("resnet18", "adarem", seed), 71.0), 300, 0.55 + seed / 10)
    return folder


def test_the_figure_and_its_csv(sweep: Path, dirs: tuple[Path, Path]) -> None:
    table = load_table(sweep, dirs[1])
    *_, named = draw_figures(table)
    assert named.name == "table2-steps" and "Table 2. What each step does, on ImageNet" in " ".join(texts(named.figure))
    ratio, gradient, positive = named.figure.axes
    assert [len(ax.get_lines()) for ax in (ratio, gradient, positive)] == [2, 2, 1]
    assert ratio.get_yscale() == gradient.get_yscale() == "log" and ratio.get_xlabel() == "Step"
    (share,) = positive.get_lines()
    assert share.get_ydata() == pytest.approx(60.0)  # the mean of the two seeds, in percent
    assert len(share.get_xdata()) <= MOST_STEPS and share.get_xdata()[0] == 4 * 50  # every 4th of 300

    write_sweep_results(table, dirs[1])
    rows = list(csv.DictReader((dirs[1] / "steps.csv").read_text().splitlines()))
    assert len(rows) == 4 * 75 and {r["seed"] for r in rows} == {"0", "1"}
    first = next(r for r in rows if r["optimizer"] == "adarem" and r["seed"] == "1")
    assert (first["step"], first["b_positive"], first["update_to_weight"]) == ("200", "0.65", "0.04")
    assert {r["b_positive"] for r in rows if r["optimizer"] == "sgdm"} == {""}
    files = json.loads((dirs[1] / "manifest.json").read_text())["files"]
    assert files["steps"] == ["steps.csv"] and "figures/table2-steps.svg" in files["figures"]
    assert "table2-steps" in (dirs[1] / "report.html").read_text()


def test_a_sweep_without_watched_steps_has_neither(table2_runs: Path, dirs: tuple[Path, Path]) -> None:
    table = load_table(table2_runs, dirs[1])
    assert "table2-steps" not in [named.name for named in draw_figures(table)] and steps.to_csv(table.sweep) is None
    write_sweep_results(table, dirs[1])
    assert not (dirs[1] / "steps.csv").exists()


def test_damaged_lines_are_named_and_the_others_shown(dirs: tuple[Path, Path]) -> None:
    folder = write_grid(dirs[0], seeds=[0])
    run = finish(folder, make_config("resnet18", "sgdm"), 70.5)
    watch(run, 3)
    with open(run.steps_file, "ab") as f:
        f.write(b'{"step": 200, "loss": null, "grad_norm": "x"}\n{"loss": 1.0}\n\xff{"ste\n[]\n')
    table = load_table(folder, dirs[1])
    write_sweep_results(table, dirs[1])
    (found,) = table.sweep.runs
    assert found.steps["step"].tolist() == [50, 100, 150, 200] and np.isnan(found.steps["grad_norm"][-1])
    assert "3 unreadable lines in steps.jsonl" in (dirs[1] / "table.md").read_text()


def test_of_a_large_sweep_the_first_seeds_are_read(
    sweep: Path, dirs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "MOST_RUNS", 2)
    read: list[Path] = []
    read_steps = RunDir.read_steps
    monkeypatch.setattr(RunDir, "read_steps", lambda self, n=None: read.append(self.path) or read_steps(self, n))
    table = load_table(sweep, dirs[1])
    assert {r.config.seed for r in steps.watched_runs(table.sweep)} == {0}
    *_, named = draw_figures(table)
    assert "2 runs of later seeds are left out" in " ".join(texts(named.figure))
    assert len(read) == 2 and all(path.name.endswith("-s0") for path in read)
