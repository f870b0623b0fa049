"""What sacct prints, into the sweep's folder; sacct is a stand-in."""

import os
from pathlib import Path

import pytest

from adarem.launch.slurm.accounting import keep_array_job, main, write_down
from adarem.launch.slurm.commands import array_list, job_name
from adarem.plan.plan import Plan
from adarem.run.spent import accounting_file, read_accounting
from tests.support.launching import executable

TOKEN = "20260101-000000-abcdef"


@pytest.fixture
def sacct(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep with an array of its runs, job 12; returns the file of what sacct prints."""
    plan.write()
    names = array_list(plan.folder, TOKEN)
    names.parent.mkdir(exist_ok=True)
    names.write_text("".join(f"{p.config.run_name}\n" for p in plan.runs))
    keep_array_job(plan.folder, TOKEN, "12")
    bin, out = tmp_path / "bin", tmp_path / "printed"
    bin.mkdir(exist_ok=True)
    executable(
        bin / "sacct",
        f'#!/bin/bash\nprintf "%s\\n" "$@" >"{tmp_path}/asked"; env | sort >"{tmp_path}/env"; cat "{out}"\n',
    )
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    return out


def test_each_start_of_each_run_is_kept(plan: Plan, sacct: Path, tmp_path: Path) -> None:
    name = job_name(plan.folder, TOKEN)
    plan.runs[2].run.start_attempt({"slurm_job": "40"})  # by hand
    sacct.write_text(
        f"12_0|{name}|REQUEUED|2026-01-01T00:00:00|1800|64|billing=64,cpu=64,gres/gpu=8,gres/gpu:h100=8,node=1\n"
        f"12_0|{name}|COMPLETED|2026-01-01T01:00:00|3600|64|cpu=64,gres/gpu=8,node=1\n"
        f"12_1|{name}|CANCELLED by 1000|2026-01-01T00:00:00|60|4|cpu=4,gres/gpu:a100=2,gres/gpu:h100=1\n"
        f"12_[2-3]|{name}|PENDING|Unknown|0|0|\n"
        f"12_7|{name}|COMPLETED|2026-01-01T00:00:00|9|1|\n"  # of no run
        "40|vi|TIMEOUT|2026-01-01T02:00:00|100|2|cpu=2\n"
        "a line that is none — ü\n",
        encoding="utf-8",
    )
    assert write_down(plan.folder) == 4
    first, second, third = (p.config.run_name for p in plan.runs)
    found = read_accounting(plan.folder)
    assert [(j.state, j.seconds, j.gpus) for j in found[first]] == [("REQUEUED", 1800, 8), ("COMPLETED", 3600, 8)]
    assert [(j.state, j.gpus) for j in found[second]] == [("CANCELLED", 3)]
    assert [(j.job, j.gpus, j.cpus) for j in found[third]] == [("40", 0, 2)]
    assert {"--jobs=12,40", "--duplicates", "--allocations"} <= set((tmp_path / "asked").read_text().splitlines())


def test_the_callers_environment_changes_nothing(
    plan: Plan, sacct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("SACCT_FORMAT", "SLURM_TIME_FORMAT", "SLURM_CLUSTERS", "SLURM_JOB_ID"):
        monkeypatch.setenv(key, "other")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("LC_ALL", "C")
    sacct.write_text(f"12_0|{job_name(plan.folder, TOKEN)}|COMPLETED|2026-01-01T01:00:00|3600|64|\n")
    assert write_down(plan.folder) == 1
    seen = (tmp_path / "env").read_text().splitlines()
    assert {"SLURM_CONF=/etc/slurm.conf", "LC_ALL=C.UTF-8"} <= set(seen)
    assert not [line for line in seen if line.startswith(("SACCT_", "SLURM_")) and "SLURM_CONF" not in line]


@pytest.mark.parametrize("script", ["#!/bin/bash\nexit 1\n", "#!/bin/bash\necho nonsense\n", None])
def test_without_an_answer_there_is_no_file(plan: Plan, sacct: Path, tmp_path: Path, script: str | None) -> None:
    if script is None:
        (tmp_path / "bin" / "sacct").unlink()
    else:
        executable(tmp_path / "bin" / "sacct", script)
    assert write_down(plan.folder) == 0 and main([str(plan.folder)]) == 0
    assert not accounting_file(plan.folder).exists()


def test_a_sweep_without_jobs_asks_nothing(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan.write()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert write_down(plan.folder) == 0
