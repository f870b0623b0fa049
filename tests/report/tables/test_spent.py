from pathlib import Path

import pytest

from adarem.report import make_report
from adarem.report.load import load_sweep
from adarem.report.tables import spent
from adarem.report.tables.table import build, read_paper
from adarem.run.directory import RunDir
from adarem.run.estimate import estimate, estimate_file, write_estimates
from adarem.run.spent import JobRecord, write_accounting
from tests.support.measured import measurement
from tests.support.sweeps import diverge, finish, make_config, start, write_grid


@pytest.fixture
def folder(dirs: tuple[Path, Path]) -> Path:
    """SGDM finished in an hour where 1120 s were expected; AdaRem diverged after half an hour; both on two ranks."""
    folder = write_grid(dirs[0], data="digits", scale="rehearsal")
    sgdm, adarem = (make_config("resnet18", o, data="digits") for o in ("sgdm", "adarem"))
    finish(folder, sgdm, 90.0)
    diverge(folder, adarem)
    for config, seconds in ((sgdm, 3600.0), (adarem, 1800.0)):
        run = RunDir(folder / config.run_name)
        run.attempts_file.unlink()
        attempt = start(run, world_size=2)
        begin = run.attempts()[0]["start"]
        run.attempts_file.write_text(
            f'{{"attempt": {attempt}, "start": {begin}, "world_size": 2, "end": {begin + seconds}, "why": "done"}}\n'
        )
    write_estimates(folder, {c.run_name: estimate(c, measurement(c)) for c in (sgdm, adarem)})
    return folder


def rows(folder: Path, dirs: tuple[Path, Path]) -> dict[str, list[str]]:
    sweep = load_sweep(folder)
    found = spent.rows(build(sweep, read_paper(sweep.spec, dirs[1])))
    assert found is not None
    return {row[0]: list(row[1:]) for row in found.rows}


def test_attempts_count_where_slurm_has_nothing(folder: Path, dirs: tuple[Path, Path]) -> None:
    found = rows(folder, dirs)
    expected = 2 * (1120 - 5) / 3600  # without what comes before an attempt's record
    assert found["SGDM"] == ["1", f"{expected:.2f}", "2.00", f"{2 / expected:.2f}", "0.00", "attempts"]
    assert found["AdaRem"] == ["0", "—", "—", "—", "1.00", "attempts"]


def test_slurms_accounting_counts_before_them(folder: Path, dirs: tuple[Path, Path]) -> None:
    run = "resnet18-sgdm-s0"
    write_accounting(folder, [JobRecord(run, "1_0", s, "", 1120.0, 2, 2) for s in ("REQUEUED", "COMPLETED")])
    assert rows(folder, dirs)["SGDM"] == ["1", "37.33", "74.67", "2.00", "0.00", "Slurm"]


def test_the_page_and_the_text_have_the_section(folder: Path, dirs: tuple[Path, Path]) -> None:
    made = make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1], data="digits")
    assert "Estimated and spent:" in made.text
    results = dirs[1] / folder.name
    assert "## Estimated and spent" in (results / "table.md").read_text()
    assert "Estimated and spent" in (results / "report.html").read_text()


def test_a_sweep_without_estimates_has_none(folder: Path, dirs: tuple[Path, Path]) -> None:
    estimate_file(folder).unlink()
    made = make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1], data="digits")
    assert "Estimated and spent" not in made.text + (dirs[1] / folder.name / "report.html").read_text()


def test_a_damaged_file_is_named_and_hides_nothing_else(folder: Path, dirs: tuple[Path, Path]) -> None:
    estimate_file(folder).write_text("{")
    made = make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1], data="digits")
    assert "estimate.json" in made.text and "SGDM" in made.text and not made.failed
