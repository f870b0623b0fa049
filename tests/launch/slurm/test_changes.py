"""What a plan does to runs that are in the queue, with stand-ins for Slurm's programs."""

import pytest

from adarem.cli import main
from adarem.launch.launch import launch
from adarem.plan.plan import Plan
from adarem.run import exitcodes
from tests.support.fake_slurm import FakeSlurm
from tests.support.launching import moved


@pytest.fixture
def queued(plan: Plan, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> Plan:
    """Three runs in the queue as job 100."""
    wanted = moved(plan, plan.runs_dir, name="slurm", partition="gpu", time="1-00:00:00", max_parallel=2)
    assert launch(wanted) == exitcodes.OK
    capsys.readouterr()
    return wanted


def configs(plan: Plan) -> list[str]:
    return [p.run.config_file.read_text() for p in plan.runs]


def test_a_queued_runs_config_stays_and_the_command_is_said(
    queued: Plan, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    before = configs(queued)
    changed = moved(
        queued, queued.runs_dir, partition="cpu", time="02:00:00", max_parallel=8, nodes=3, aux_partition="x"
    )
    assert launch(changed) == exitcodes.OK
    assert configs(queued) == before and len(slurm.submitted) == 2
    said = capsys.readouterr().out
    for line in (
        "cluster.partition=cpu: does not reach 3 runs queued with gpu as job 100; "
        "scontrol update JobId=100 Partition=cpu",
        "cluster.time=02:00:00: does not reach 3 runs queued with 1-00:00:00 as job 100; "
        "scontrol update JobId=100 TimeLimit=02:00:00",
        "cluster.max_parallel=8: does not reach 3 runs queued with 2 as job 100; "
        "scontrol update JobId=100 ArrayTaskThrottle=8",
        "cluster.nodes=3: does not reach 3 runs queued with 1 as job 100; scancel 100, then the same command again",
    ):
        assert line in said.splitlines()
    assert "aux_partition" not in said


def test_a_run_that_left_the_queue_gets_the_new_config(
    queued: Plan, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.set("100", "CANCELLED", task=1)
    assert launch(moved(queued, queued.runs_dir, partition="cpu")) == exitcodes.OK
    assert [p.run.config().cluster.partition for p in queued.runs] == ["gpu", "cpu", "gpu"]
    assert "2 runs queued with gpu as job 100; scontrol update JobId=100 Partition=cpu" in capsys.readouterr().out
    assert "--partition=cpu" in slurm.submitted[-2]["words"]


def test_planning_alone_leaves_it_too(
    queued: Plan, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = configs(queued)
    monkeypatch.setattr("adarem.plan.plan.make_plan", lambda words: moved(queued, queued.runs_dir, partition="cpu"))
    assert main(["plan", "grid=table2"]) == exitcodes.OK and configs(queued) == before
    assert "scontrol update JobId=100 Partition=cpu" in capsys.readouterr().out
    slurm.site(down="no controller")
    assert main(["plan", "grid=table2"]) == exitcodes.OK and configs(queued) == before
    said = capsys.readouterr().out
    assert "squeue: no controller; runs that were submitted keep their config.yaml until it does" in said
    assert "cluster.partition=cpu: does not reach 3 runs queued with gpu as a job that may be in the queue" in said


def test_a_launch_here_leaves_queued_runs_to_slurm(
    queued: Plan, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    before = configs(queued)
    slurm.set("100", "COMPLETED", task=2)
    here = moved(queued, queued.runs_dir, name="local", max_parallel=1)
    assert launch(here) == exitcodes.OK
    assert [p.run.status() for p in here.runs] == ["planned", "planned", "done"] and configs(queued)[:2] == before[:2]
    said = capsys.readouterr().out
    assert "resnet18-sgdm-s0: in Slurm's queue as job 100_0; skipped, scancel 100_0 to train it here" in said
