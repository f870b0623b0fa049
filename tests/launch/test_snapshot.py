"""The state of runs, read from their directories and Slurm's queue."""

import os
from pathlib import Path

import pytest

from adarem.launch import snapshot as module
from adarem.launch.slurm.accounting import keep_array_job
from adarem.launch.slurm.commands import array_list, job_name, slurm_folder
from adarem.launch.slurm.requeue import refuse
from adarem.launch.slurm.sbatch import submit
from adarem.launch.snapshot import Progress, RunStatus, find_sweeps, outcome, snapshot
from adarem.launch.status import as_text
from adarem.plan.plan import make_plan
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from tests.support.fake_slurm import FakeSlurm
from tests.support.own_images import make_folder
from tests.support.sweeps import finish, make_config


def named(sweep: Path, name: str) -> RunStatus:
    return next(run for run in snapshot([sweep]) if run.run == name)


def test_a_running_run(sweep: Path) -> None:
    """The epoch in progress, its loss and speed; the accuracy is of the last evaluation."""
    assert named(sweep, "resnet18-adarem-s0") == RunStatus(
        "table2", "resnet18-adarem-s0", "running", "12_3",
        Progress(12, 100, 2.345, pytest.approx(60 * (1 - 2.718281828**-0.44)), None, 9123.4, None, 3723), None,
    )  # fmt: skip


def test_finished_and_planned_runs(sweep: Path) -> None:
    states = {run.run: (run.state, run.problem) for run in snapshot([sweep])}
    assert states == {
        "resnet18-adam-s0": ("diverged", "loss is nan"),
        "resnet18-adamw-s0": ("planned", None),
        "resnet18-adarem-s0": ("running", None),
        "resnet18-sgdm-s0": ("done", None),
    }
    done, planned = named(sweep, "resnet18-sgdm-s0").progress, named(sweep, "resnet18-adamw-s0").progress
    assert done == Progress(100, 100, 1.0, 70.5, None, 9000.0, None, None)
    assert planned == Progress(0, 100, None, None, None, None, None, None)


def test_a_damaged_config_makes_the_run_unreadable(sweep: Path) -> None:
    (sweep / "resnet18-adamw-s0" / "config.yaml").write_text("grid: [")
    run = named(sweep, "resnet18-adamw-s0")
    assert run.state == "unreadable" and run.progress is None
    assert run.problem is not None and "resnet18-adamw-s0/config.yaml: not valid YAML" in run.problem


def test_a_damaged_result_is_the_problem_shown(sweep: Path) -> None:
    """The attempt of a run whose result was cut or edited later ended well, and records no problem."""
    for seed, damage, expected in (
        (1, lambda text: text[:40], "not readable as JSON"),
        (2, lambda text: text.replace("70.5", "71.5"), "checksum differs"),
    ):
        run = finish(sweep, make_config("resnet18", "sgdm", seed), 70.5)
        run.result_file.write_text(damage(run.result_file.read_text()))
        found = named(sweep, run.path.name)
        assert found.state == "failed" and found.problem is not None
        assert found.problem.startswith(f"{run.result_file}: ") and expected in found.problem


def test_a_directory_without_a_config_is_listed(sweep: Path) -> None:
    (sweep / "resnet18-adamw-s0" / "config.yaml").unlink()
    RunDir(sweep / "resnet18-adamw-s0").append_metrics({"epoch": 1, "split": "train"})
    slurm_folder(sweep).mkdir()
    (slurm_folder(sweep) / "12_0.out").write_text("")
    assert len(snapshot([sweep])) == 4
    run = named(sweep, "resnet18-adamw-s0")
    assert run.state == "unreadable" and "resnet18-adamw-s0: no config.yaml there" in (run.problem or "")


def test_a_file_of_the_wrong_shape_spoils_only_its_own_run(sweep: Path) -> None:
    (sweep / "resnet18-adarem-s0" / "config.yaml").write_text("[1, 2]\n")
    assert named(sweep, "resnet18-adarem-s0").state == "unreadable"
    assert named(sweep, "resnet18-sgdm-s0").state == "done"


def test_values_that_are_no_numbers_are_not_known(sweep: Path) -> None:
    run = RunDir(sweep / "resnet18-adarem-s0")
    run.attempts_file.write_text('{"attempt": 1, "start": "noon"}\n')
    run.write_progress({"epoch": 12, "loss": "much", "images_per_s": None, "seconds_left": [1]})
    progress = named(sweep, run.path.name).progress
    assert progress is not None
    assert (progress.loss, progress.images_per_s, progress.seconds_left) == (None, None, None)


@pytest.fixture
def slurm(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A site where an array, job 100, has the sweep's four runs: adam, adamw, adarem, sgdm."""
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.folder}:{os.environ['PATH']}")
    names = sorted(p.name for p in sweep.iterdir() if p.is_dir())
    array_list(sweep, "one").parent.mkdir()
    array_list(sweep, "one").write_text("".join(f"{name}\n" for name in names))
    words = ["sbatch", f"--job-name={job_name(sweep, 'one')}", "--array=0-3"]
    keep_array_job(sweep, "one", submit(words, os.environ))
    return fake


def states(sweep: Path) -> dict[str, str]:
    return {run.run.split("-")[1]: run.state for run in snapshot([sweep])}


def test_a_run_in_the_queue(sweep: Path, slurm: FakeSlurm) -> None:
    """What it waits for; what is finished or trains stays so."""
    slurm.set("100", "PENDING", "Resources")
    slurm.set("100", "RUNNING", task=2)
    assert states(sweep) == {"adam": "diverged", "adamw": "queued", "adarem": "running", "sgdm": "done"}
    waiting = named(sweep, "resnet18-adamw-s0")
    assert (waiting.job, waiting.reason) == ("100_1", "waits for free nodes (Resources)")
    assert waiting.to_json()["reason"] == waiting.reason
    for state, reason, shown in (
        ("PENDING", "JobHeldUser", "held"), ("RUNNING", "None", "starting"), ("COMPLETING", "None", "ending"),
    ):  # fmt: skip
        slurm.set("100", state, reason)
        assert states(sweep)["adamw"] == shown
    assert states(sweep) == {"adam": "diverged", "adamw": "ending", "adarem": "ending", "sgdm": "done"}


def test_a_run_whose_job_waits_is_not_running_though_its_files_are_fresh(sweep: Path, slurm: FakeSlurm) -> None:
    """Its node went down a minute ago. One whose lock is held does train."""
    slurm.set("100", "PENDING", "BeginTime")
    assert states(sweep)["adarem"] == "queued"
    with RunDir(sweep / "resnet18-adarem-s0").lock():
        assert states(sweep)["adarem"] == "running"


def test_a_slurm_that_does_not_answer_is_said(sweep: Path, slurm: FakeSlurm) -> None:
    slurm.site(down="slurm_load_jobs error: Unable to contact slurm controller")
    assert states(sweep) == {"adam": "diverged", "adamw": "unknown", "adarem": "running", "sgdm": "done"}
    reason = named(sweep, "resnet18-adamw-s0").reason
    assert reason == "Slurm does not answer: squeue: slurm_load_jobs error: Unable to contact slurm controller"
    assert f"1 unknown: {reason}" in as_text(snapshot([sweep]))
    (slurm.folder / "squeue").write_text("#!/bin/sh\nsleep 300\n")
    module.PATIENCE_SECONDS, kept = 0.2, module.PATIENCE_SECONDS
    try:
        assert named(sweep, "resnet18-adamw-s0").reason == "Slurm does not answer: squeue: no answer within 0 s"
    finally:
        module.PATIENCE_SECONDS = kept


def test_a_job_that_died_before_its_first_attempt(sweep: Path, slurm: FakeSlurm) -> None:
    slurm.set("100", "FAILED", code="1:0")
    log = slurm_folder(sweep) / "100_1.out"
    log.write_text("module: command not found\n")
    for accounting, why in ((False, ""), (True, " (FAILED, exit code 1)")):
        slurm.site(accounting=accounting)
        run = named(sweep, "resnet18-adamw-s0")
        assert (run.state, run.job) == ("failed", "100_1")
        assert run.problem == f"job 100_1 ended before its first attempt{why}; see {log}"
    slurm.set("100", "CANCELLED")
    log.unlink()
    run = named(sweep, "resnet18-adamw-s0")
    assert run.state == "planned" and run.problem is not None and "was cancelled before it started" in run.problem


def test_a_job_that_the_site_does_not_start_again(sweep: Path, slurm: FakeSlurm) -> None:
    run = RunDir(sweep / "resnet18-adamw-s0")
    run.end_attempt(run.start_attempt({"slurm_job": "100_1"}), "interrupted", "SIGUSR1 at step 9")
    slurm.set("100", "FAILED", code="75:0")
    refuse(run, "Requested operation is presently disabled for job 101")
    found = named(sweep, run.path.name)
    assert found.state == "interrupted" and found.problem is not None
    assert "(Requested operation is presently disabled for job 101); `adarem launch` continues it" in found.problem


def test_sweeps_are_found_by_grid_and_data(sweep: Path) -> None:
    assert find_sweeps(sweep.parent) == find_sweeps(sweep.parent, "table2") == [sweep]
    with pytest.raises(UserError, match="no runs of table1 there; `adarem launch grid=table1` makes some"):
        find_sweeps(sweep.parent, "table1")
    with pytest.raises(UserError, match="no runs of table2 on digits there; leave data=digits out$"):
        find_sweeps(sweep.parent, "table2", "digits")


def test_folders_of_images_are_found_by_the_file_that_planned_them(sweep: Path, tmp_path: Path) -> None:
    """The name of such a data set is the folder's: `adarem status data=folder` is what one types."""
    make_folder(tmp_path / "birds", 3, 3)
    own = make_plan(["data=folder", f"data.root={tmp_path}/birds", f"runs_dir={sweep.parent}", "optimizer=sgdm"])
    own.write()
    assert find_sweeps(sweep.parent, data="folder") == find_sweeps(sweep.parent, data="birds") == [own.folder]
    with pytest.raises(UserError, match="no runs on fish there; leave data=fish out, or name one of birds$"):
        find_sweeps(sweep.parent, data="fish")
    with pytest.raises(UserError, match="no runs of figure2 there"):
        find_sweeps(sweep.parent, "figure2", "folder")


def test_outcomes(sweep: Path) -> None:
    assert outcome(RunDir(sweep / "resnet18-sgdm-s0")) == "top-1 70.50 %"
    assert outcome(RunDir(sweep / "resnet18-adam-s0")) == "diverged in epoch 3"
    run = RunDir(sweep / "resnet18-adamw-s0")
    run.write_result({"status": "done", "perplexity": 96.1})
    assert outcome(run) == "test perplexity 96.10"
