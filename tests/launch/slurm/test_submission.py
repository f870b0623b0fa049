"""Launches at sites with limits, by stand-ins for Slurm's programs that share a queue."""

from dataclasses import replace
from pathlib import Path

import pytest

from adarem.launch import preparation
from adarem.launch.launch import launch
from adarem.plan.plan import Plan
from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from tests.support.fake_slurm import FakeSlurm, option
from tests.support.launching import moved


def many(plan: Plan, runs: int, **cluster: object) -> Plan:
    """The plan with so many runs, of further seeds."""
    first = plan.runs[0]
    planned = []
    for seed in range(runs):
        config = replace(first.config, seed=seed, run_name=f"resnet18-sgdm-s{seed}")
        planned.append(replace(first, config=config, run=RunDir(plan.folder / config.run_name)))
    spec = replace(plan.spec, seeds=tuple(range(runs)), runs=tuple(p.config.run_name for p in planned))
    return moved(replace(plan, runs=planned, spec=spec), plan.runs_dir, name="slurm", **cluster)


def jobs(slurm: FakeSlurm, script: str) -> list[list[str]]:
    return [j["words"] for j in slurm.submitted if any(w.endswith(script) for w in j["words"])]


def arrays(slurm: FakeSlurm) -> list[tuple[str, str]]:
    return [(option(w, "array"), option(w, "dependency")) for w in jobs(slurm, "run.sbatch")]


def names_of(words: list[str]) -> list[str]:
    return Path(words[-1]).read_text().split()


def test_an_array_that_is_too_long_is_cut(slurm: FakeSlurm, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    """Each piece follows the one before, so that cluster.max_parallel holds; one report follows the last."""
    slurm.site(max_array=3)
    wanted = many(plan, 8, max_parallel=2)
    assert launch(wanted, dry_run=True) == exitcodes.OK and "--array=0-2%2" in capsys.readouterr().out
    assert launch(wanted) == exitcodes.OK
    assert arrays(slurm) == [("0-2%2", ""), ("0-2%2", "afterany:100"), ("0-1%2", "afterany:101")]
    trained = [name for words in jobs(slurm, "run.sbatch") for name in names_of(words)]
    assert trained == [p.config.run_name for p in wanted.runs]
    (report,) = jobs(slurm, "report.sbatch")
    assert option(report, "dependency") == "afterany:100:101:102"
    assert launch(wanted) == exitcodes.OK and len(slurm.submitted) == 4
    assert capsys.readouterr().out.count("already in the queue as job") == 8


def test_a_cluster_that_does_not_say_how_long_an_array_may_be(slurm: FakeSlurm, plan: Plan) -> None:
    slurm.site(max_array=3)
    (slurm.folder / "scontrol").unlink()
    assert launch(many(plan, 8)) == exitcodes.OK
    assert [a for a, _ in arrays(slurm)] == ["0-1"] * 4


def test_what_the_submit_limit_leaves_is_said_and_submitted_later(
    slurm: FakeSlurm, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.site(max_submit=7)
    wanted = many(plan, 10)
    assert launch(wanted) == exitcodes.REQUEUE
    said = capsys.readouterr().out
    assert "left     5 runs: " in said and "the same command submits the rest once jobs have ended" in said
    assert arrays(slurm) == [("0-4", "")] and len(jobs(slurm, "report.sbatch")) == 1
    for _ in range(10):
        for job in slurm.active[:-1]:  # the newest is the report, which waits
            slurm.set(job, "COMPLETED")
        done = {name for words in jobs(slurm, "run.sbatch") for name in names_of(words)}
        for planned in wanted.runs:
            if planned.config.run_name in done and not planned.run.result_file.exists():
                planned.run.write_result({"status": "done", "top1": 70.0})
        if launch(wanted) == exitcodes.OK:
            break
    trained = [name for words in jobs(slurm, "run.sbatch") for name in names_of(words)]
    assert sorted(trained) == sorted(p.config.run_name for p in wanted.runs)  # each once
    reports = [j["id"] for j in slurm.submitted if any(w.endswith("report.sbatch") for w in j["words"])]
    assert [job for job in slurm.active if job in reports] == reports[-1:]  # one report waits


def test_no_room_at_all_leaves_nothing(
    slurm: FakeSlurm, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a job that prepares data nor a list; however often it is tried."""
    monkeypatch.setattr(preparation, "is_prepared", lambda data: False)
    slurm.site(max_submit=1)
    for _ in range(3):
        with pytest.raises(UserError, match="takes no job .*QOSMaxSubmitJobPerUserLimit.*run the same command again"):
            launch(many(plan, 4))
    assert not slurm.active and not list((plan.folder / "slurm").glob("*.txt"))


def test_a_refused_shape_takes_the_others_back(slurm: FakeSlurm, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "is_prepared", lambda data: False)
    wanted = many(plan, 4)
    wide = replace(wanted.runs[3].config.cluster, nodes=4)
    wanted.runs[3] = replace(wanted.runs[3], config=replace(wanted.runs[3].config, cluster=wide))
    slurm.site(refuse={"--nodes=4": "Requested node configuration is not available"})
    for _ in range(2):
        with pytest.raises(UserError, match="Requested node configuration is not available"):
            launch(wanted)
        assert not slurm.active
    slurm.site()
    assert launch(wanted) == exitcodes.OK
    assert len(slurm.active) == 4  # prepare, two arrays, report


def test_a_job_that_prepares_data_is_not_submitted_twice(
    slurm: FakeSlurm, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "is_prepared", lambda data: False)
    slurm.site(refuse={"run.sbatch": "Batch job submission failed: Socket timed out on send/recv operation"})
    for _ in range(3):
        with pytest.raises(UserError, match="which looks first"):
            launch(many(plan, 2))
    slurm.site()
    assert launch(many(plan, 2)) == exitcodes.OK
    assert len(jobs(slurm, "prepare.sbatch")) == 1 and arrays(slurm) == [("0-1", "afterok:100")]


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_jobs_whose_answer_is_lost_are_neither_lost_nor_doubled(
    lost: int, slurm: FakeSlurm, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "is_prepared", lambda data: False)
    slurm.site(lost=lost)
    assert launch(many(plan, 3)) == exitcodes.OK
    assert [len(jobs(slurm, f"{s}.sbatch")) for s in ("prepare", "run", "report")] == [1, 1, 1]
    assert arrays(slurm) == [("0-2", "afterok:100")]


def test_a_job_that_comes_into_the_queue_after_the_launch_gave_up(slurm: FakeSlurm, plan: Plan) -> None:
    """The list of its runs stays under the job's name, so that the next launch knows them."""
    slurm.site(lost=1)
    program = slurm.folder / "squeue"
    kept = program.read_text()
    program.write_text("#!/bin/sh\nexit 0\n")  # an empty queue
    with pytest.raises(UserError, match="the queue has no job"):
        launch(many(plan, 3))
    program.write_text(kept)
    assert launch(many(plan, 3)) == exitcodes.OK
    assert [len(jobs(slurm, f"{s}.sbatch")) for s in ("run", "report")] == [1, 1]


def test_max_parallel_holds_over_submissions(slurm: FakeSlurm, plan: Plan) -> None:
    """A run more waits for the arrays of before, unless all of them together are no more than may train at a time."""
    launch(many(plan, 3, max_parallel=4))
    launch(many(plan, 4, max_parallel=4))
    launch(many(plan, 6, max_parallel=4))
    assert arrays(slurm) == [("0-2%4", ""), ("0-0%4", ""), ("0-1%4", "afterany:100:102")]


def test_the_callers_environment_does_not_double_an_array(
    slurm: FakeSlurm, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it reach the job: a launch from inside srun would pin the ranks to its own CPU."""
    for key, value in {
        "SQUEUE_STATES": "RUNNING", "SQUEUE_USERS": "nobody", "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
        "SBATCH_EXPORT": "NONE", "RANK": "0", "WORLD_SIZE": "1", "SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    assert launch(many(plan, 2)) == launch(many(plan, 2)) == exitcodes.OK
    assert len(arrays(slurm)) == 1
    env = slurm.submitted[0]["env"]
    assert not {"SLURM_CPU_BIND", "SBATCH_EXPORT", "RANK", "WORLD_SIZE", "SLURM_JOB_ID"} & env.keys()


def test_a_default_that_is_not_used_is_said(
    slurm: FakeSlurm, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    launch(many(plan, 1))
    assert "SBATCH_ACCOUNT=mine: not used; give cluster." in capsys.readouterr().out


def test_a_run_that_is_ending_goes_on_in_a_new_job_after_it(
    slurm: FakeSlurm, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = many(plan, 3)
    launch(wanted)
    slurm.set("100", "COMPLETING", task=1)
    slurm.set("100", "RUNNING", task=2)
    assert launch(wanted) == exitcodes.OK
    assert arrays(slurm)[1:] == [("0-0", "afterany:100_1")]
    assert names_of(jobs(slurm, "run.sbatch")[1]) == ["resnet18-sgdm-s1"]
    assert "resnet18-sgdm-s1: job 100_1 is ending; it goes on" in capsys.readouterr().out
    launch(wanted)
    assert len(arrays(slurm)) == 2  # it is in the queue now


def test_flags_by_which_jobs_would_not_be_found_again_are_refused(slurm: FakeSlurm, plan: Plan) -> None:
    for flag in ("--job-name=x", "-Jx", "--array=0-3", "--clusters=other", "-M", "--wait", "--test-only", "--wrap=ls"):
        with pytest.raises(UserError, match=f"cluster.extra: {flag}: "):
            launch(many(plan, 2, extra=("--qos=high", flag)))
    assert not slurm.submitted
