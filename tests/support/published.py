"""A finished sweep and its report, for tests of what wandb gets of them."""

from dataclasses import replace
from pathlib import Path

from adarem.report import make_report
from adarem.run.sweep import read_sweep, write_sweep
from tests.support.sweeps import finish, make_config, write_grid

REHEARSAL = (
    "embedded digits, 10 epochs, global batch 64: shows that the pipeline works, says nothing about the paper's claims"
)


def finished_sweep(tmp_path: Path, data: str = "digits", grid: str = "table2") -> Path:
    """Three finished runs for two cells of the table, one of them with two seeds, under tmp_path/runs."""
    scale = "paper" if data == "imagenet" else "rehearsal"
    folder = write_grid(tmp_path / "runs", grid, data, scale, seeds=[0, 1])
    write_sweep(folder, replace(read_sweep(folder), data=data, scale=scale))
    for optimizer, seed, top1 in (("sgdm", 0, 70.0), ("adarem", 0, 71.0), ("adarem", 1, 71.5)):
        finish(folder, make_config("resnet18", optimizer, seed, grid=grid, data=data), top1)
    return folder


def report_on(sweep: Path, tmp_path: Path, data: str) -> Path:
    """Makes the sweep's report; returns its results_dir."""
    make_report(grid="table2", runs_dir=sweep.parent, results_dir=tmp_path / "results", data=data)
    return tmp_path / "results"
