"""Launching on Slurm with stand-ins for sbatch and squeue; a real Slurm is in real/."""

import io
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adarem.launch import preparation
from adarem.launch.launch import launch
from adarem.launch.slurm import requeue
from adarem.launch.slurm.commands import slurm_folder
from adarem.plan.plan import Plan
from adarem.run import exitcodes, locks
from adarem.run.errors import UserError
from adarem.run.estimate import read_estimates
from adarem.run.measurements import keep_measurement
from tests.support import ROOT
from tests.support.launching import executable, moved
from tests.support.measured import measurement

Site = tuple[Plan, Callable[[], list[list[str]]]]  # a plan, and what sbatch got: words of each submission


@pytest.fixture
def site(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A plan for Slurm, and an sbatch that records what it is given: returns (plan, submissions)."""
    bin = tmp_path / "bin"
    bin.mkdir()
    record = tmp_path / "submissions"
    record.mkdir()
    executable(
        bin / "sbatch",
        f"#!/bin/bash\nn=$(ls {record} | wc -l)\n"
        'for word; do case "$word" in --job-file=*) . "${word#*=}";; esac; done\n'
        f'{{ printf "%s\\0" "$ADAREM_PYTHON" "$ADAREM_SETUP" "${{OMP_NUM_THREADS-unset}}" "$@"; }} >{record}/$n\n'
        'echo "$((100 + n));cluster"\n',
    )
    executable(bin / "squeue", f"#!/bin/bash\ncat {tmp_path}/queue 2>/dev/null\nexit 0\n")
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def submissions() -> list[list[str]]:
        return [(record / str(n)).read_text().split("\0")[:-1] for n in range(len(list(record.iterdir())))]

    plan = moved(
        plan, plan.runs_dir, name="slurm", device="cuda", nodes=2, ranks_per_node=8, cpus_per_rank=4, partition="gp u",
        account="$(id)", time="1-00:00:00", max_parallel=4, extra=("--qos=high", "--comment=two words"),
        setup="module load 'cuda'", threads_per_rank=0,
    )  # fmt: skip
    return plan, submissions


def test_sbatch_gets_exactly_these_words(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    plan, submissions = site
    assert launch(plan) == exitcodes.OK
    array, report = submissions()
    assert array[:3] == [sys.executable, "module load 'cuda'", "unset"]
    name = array[4].removeprefix("--job-name=table2-digits-smoke-")
    listing = plan.folder / "slurm" / f"{name}.txt"
    logs = str(plan.folder / "slurm").replace("%", "%%")
    assert array[3:] == [
        "--parsable",
        f"--job-name=table2-digits-smoke-{name}",
        "--array=0-2%4",
        "--nodes=2",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--cpus-per-task=4",
        "--time=1-00:00:00",
        f"--output={logs}/%A_%a.out",
        "--partition=gp u",
        "--account=$(id)",
        "--qos=high",
        "--comment=two words",
        str(ROOT / "slurm" / "run.sbatch"),
        f"--job-file={listing.with_suffix('.job')}",
        str(listing),
    ]
    assert listing.read_text() == "".join(f"{planned.config.run_name}\n" for planned in plan.runs)
    assert report[3] == "--parsable" and report[4].startswith("--job-name=table2-digits-smoke-report-")
    assert report[5] == "--dependency=afterany:100"
    assert f"runs_dir={plan.runs_dir}" in report and "grid=table2" in report
    out = capsys.readouterr().out
    assert "array    job 100: 3 runs, 2 nodes x 8 ranks each" in out and "squeue --array --jobs=100" in out


def test_each_rung_is_an_array_after_the_one_below(
    site: Site, search: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, submissions = site
    plan = moved(search, search.runs_dir, name="slurm", device="cuda", nodes=2, ranks_per_node=8)
    assert launch(plan, dry_run=True) == exitcodes.OK and not submissions()
    assert capsys.readouterr().out.count("# the array's runs, task 0 first: ") == 3
    monkeypatch.setattr(preparation, "is_prepared", lambda data: False)
    assert launch(plan) == exitcodes.OK
    prepare, first, second, third, report = submissions()  # prepared once
    assert "--dependency=singleton" in prepare and all("--array=0-3" in job for job in (first, second, third))
    waits = [next(w for w in job if w.startswith("--dependency=")) for job in (first, second, third, report)]
    assert waits == [f"--dependency={w}" for w in (
        "afterok:100", "afterok:100,afterany:101", "afterok:100,afterany:102", "afterany:103"
    )]  # fmt: skip
    assert "those that go on after job 101" in capsys.readouterr().out


def test_a_task_whose_run_does_not_go_on_ends_at_once(search: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [planned.run for planned in search.runs]
    assert [requeue.main(["due", str(run.path)]) for run in runs] == [0] * 4
    for run, value in zip(runs[:3], (1.0, 2.0, 3.0), strict=True):
        run.append_metrics({"epoch": 2, "split": "holdout", "top1": value})
    assert [requeue.main(["due", str(run.path)]) for run in runs] == [requeue.HELD_BACK] * 3 + [0]
    assert "paused at 2 of 8 epochs; waits for 1 runs" in capsys.readouterr().out
    runs[3].append_metrics({"epoch": 2, "split": "holdout", "top1": 4.0})
    assert [requeue.main(["due", str(run.path)]) for run in runs] == [requeue.HELD_BACK] * 2 + [0] * 2
    assert f"{runs[0].path}: stopped at rung 2\n" in capsys.readouterr().out
    assert requeue.main(["due", str(search.folder / "gone")]) == 0  # which training says in one line


def test_jobs_ask_for_what_was_measured(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """1.3 times the longest run, unless the user gives a limit or a run was not measured."""
    plan, submissions = site
    plan = moved(plan, plan.runs_dir, time="2-00:00:00")
    plan.runs_dir.mkdir(parents=True)
    for planned, seconds in zip(plan.runs[1:], (100.0, 7200.0), strict=True):
        keep_measurement(plan.runs_dir, measurement(planned.config, epoch_seconds=seconds))
    launch(plan, dry_run=True)
    assert "--time=2-00:00:00" in capsys.readouterr().out
    keep_measurement(plan.runs_dir, measurement(plan.runs[0].config, epoch_seconds=50.0))
    launch(plan)
    assert "--time=05:13:00" in submissions()[0]  # two epochs of two hours and what is around them
    assert "price    3 runs left, " in capsys.readouterr().out
    assert set(read_estimates(plan.folder)) == {planned.config.run_name for planned in plan.runs}
    launch(replace(plan, time_given=True), dry_run=True)
    assert "--time=2-00:00:00" in capsys.readouterr().out


def test_missing_data_are_prepared_by_a_job_that_the_array_waits_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, submissions = site
    monkeypatch.setattr(preparation, "is_prepared", lambda data: False)
    launch(plan)
    prepare, array, report = submissions()
    assert "--dependency=singleton" in prepare and prepare[-1] == str(plan.runs[0].run.path)
    assert "--cpus-per-task=32" in prepare
    assert {"--dependency=afterok:100", "--kill-on-invalid-dep=yes"} <= set(array)
    assert "--dependency=afterany:101" in report


@pytest.mark.parametrize(("aux", "expected"), [(None, "gp u"), ("cpus", "cpus")])
def test_jobs_without_gpus_get_flags_of_their_own(
    site: Site, monkeypatch: pytest.MonkeyPatch, aux: str | None, expected: str
) -> None:
    """--gres or a constraint meant for the runs would keep the prepare and the report job waiting, or be refused."""
    plan, submissions = site
    plan = moved(plan, plan.runs_dir, aux_partition=aux, aux_extra=("--qos=short", "--mem=8G"))
    monkeypatch.setattr(preparation, "is_prepared", lambda data: False)
    launch(plan)
    prepare, array, report = submissions()
    for job in (prepare, report):
        script = next(i for i, word in enumerate(job) if word.endswith(".sbatch"))
        assert job[script - 4 : script] == [f"--partition={expected}", "--account=$(id)", "--qos=short", "--mem=8G"]
        assert "--qos=high" not in job
    assert array[-7:-3] == ["--partition=gp u", "--account=$(id)", "--qos=high", "--comment=two words"]


def test_cpu_clusters_are_asked_for_no_gpus(site: Site) -> None:
    plan, submissions = site
    launch(moved(plan, plan.runs_dir, device="cpu", threads_per_rank=2, max_parallel=0))
    assert {"--gpus-per-node=0", "--array=0-2"} <= set(submissions()[0]) and submissions()[0][2] == "2"


def test_queued_running_and_finished_runs_are_not_submitted_again(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, submissions = site
    launch(plan)
    name = submissions()[0][4].removeprefix("--job-name=")
    waits = f"101 N/A {submissions()[1][4].removeprefix('--job-name=')} PENDING Dependency\n"
    (tmp_path / "queue").write_text(f"100 0 {name}\n100 2 {name}\n100 N/A another\n{waits}")
    plan.runs[1].run.write_result({"status": "done", "top1": 70.0})
    launch(plan)
    assert len(submissions()) == 2
    out = capsys.readouterr().out
    assert "resnet18-sgdm-s0: already in the queue as job 100_0" in out and "top-1 70.00 %" in out

    (tmp_path / "queue").write_text(f"100 2 {name}\n")
    launch(plan)
    array, report = submissions()[2:]
    assert "--array=0-0%4" in array and Path(array[-1]).read_text() == "resnet18-sgdm-s0\n"
    assert "--dependency=afterany:102:100" in report  # the table waits for the older job too


def test_a_report_job_that_was_refused_is_submitted_by_the_next_launch(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, submissions = site
    sbatch = tmp_path / "bin" / "sbatch"
    taken = sbatch.read_text()
    refuse = 'case "$*" in *report.sbatch*) echo "error: Invalid qos" >&2; exit 1;; esac\n'
    executable(sbatch, taken.replace("#!/bin/bash\n", f"#!/bin/bash\n{refuse}"))
    with pytest.raises(UserError, match=r"Invalid qos.*queued without a report: fix cluster.aux_partition"):
        launch(plan)
    (array,) = submissions()
    name = array[4].removeprefix("--job-name=")
    queue = "".join(f"100 {i} {name}\n" for i in range(3))
    another = "77 N/A table2-digits-smoke-report-20260101-000000-abcdef\n"  # of a sweep of that name elsewhere
    (tmp_path / "queue").write_text(queue + another)
    executable(sbatch, taken)
    assert launch(plan) == exitcodes.OK
    (report,) = submissions()[1:]
    assert "--dependency=afterany:100" in report and f"runs_dir={plan.runs_dir}" in report
    assert "report   job 101: when all have ended" in capsys.readouterr().out
    (tmp_path / "queue").write_text(queue + another + f"101 N/A {report[4].removeprefix('--job-name=')}\n")
    assert launch(plan) == exitcodes.OK
    assert len(submissions()) == 2  # it waits: one is enough


def test_a_second_launcher_waits_for_the_first(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, submissions = site
    shown = io.StringIO()  # capsys empties what it reads, and a line that comes in between is lost
    monkeypatch.setattr(sys, "stderr", shown)
    slurm_folder(plan.folder).mkdir(parents=True)
    with locks.hold(slurm_folder(plan.folder) / "lock"):
        second = threading.Thread(target=launch, args=(plan,))
        second.start()
        while "another `adarem launch` submits; waiting for it" not in shown.getvalue():
            assert second.is_alive()
            time.sleep(0.01)
        assert not submissions()
    second.join()
    assert len(submissions()) == 2


def test_nothing_is_submitted_when_squeue_fails(site: Site, tmp_path: Path) -> None:
    plan, submissions = site
    launch(plan)
    executable(tmp_path / "bin" / "squeue", "#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    with pytest.raises(UserError, match="Unable to contact slurm controller"):
        launch(plan)
    assert len(submissions()) == 2


def test_a_refusing_sbatch_is_quoted_and_leaves_no_list(site: Site, tmp_path: Path) -> None:
    plan, _ = site
    executable(tmp_path / "bin" / "sbatch", "#!/bin/sh\necho 'error: invalid partition specified: gp u' >&2; exit 1\n")
    with pytest.raises(UserError, match="invalid partition specified: gp u"):
        launch(plan)
    assert not list((plan.folder / "slurm").glob("*.txt"))


def test_slurm_dry_run_prints_the_lines_and_writes_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    plan, submissions = site
    assert launch(plan, dry_run=True) == exitcodes.OK
    out = capsys.readouterr().out
    assert submissions() == [] and not plan.runs_dir.exists()
    words = shlex.split(out[out.index("sbatch --parsable") :], comments=True)
    assert words.count("sbatch") == 2 and "--account=$(id)" in words and "--dependency=afterany:JOB1" in words


def test_without_sbatch_the_remedy_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = site
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="cluster=local cluster.device=cuda"):
        launch(plan)
