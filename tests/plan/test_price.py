import json
import time
from pathlib import Path

import pytest

from adarem.plan.plan import Plan, make_plan
from adarem.run.directory import RunDir
from adarem.run.estimate import estimate_file, read_estimates
from adarem.run.measurements import Measurements, keep_measurement, probe_file, read_measurements
from tests.support.measured import measurement

NOON = 1_767_268_800.0


@pytest.fixture
def make(tmp_path: Path):
    def plan(*more: str) -> Plan:
        words = ["grid=table2", "data=digits", f'data.root="{tmp_path}"', f'runs_dir="{tmp_path / "runs"}"']
        both = [] if any(w.startswith("optimizer=") for w in more) else ["optimizer=sgdm,adam"]
        return make_plan([*words, *both, *more])

    return plan


def measure(plan: Plan, optimizers: str = "sgdm adam", **changed) -> None:
    plan.runs_dir.mkdir(exist_ok=True)
    for planned in plan.runs:
        known = Measurements(read_measurements(plan.runs_dir)).of(planned.config)
        if planned.config.optimizer.name in optimizers.split() and known is None:
            seconds = 100.0 if planned.config.optimizer.name == "sgdm" else 200.0
            keep_measurement(plan.runs_dir, measurement(planned.config, epoch_seconds=seconds, **changed))


def test_without_a_probe_the_command_is_printed_and_nothing_refused(make) -> None:
    plan = make()
    (line,) = plan.price().lines()
    assert line.startswith("price: not measured here; `adarem probe grid=table2 data=digits")
    plan.write()
    assert not estimate_file(plan.folder).exists()
    probe_file(plan.runs_dir).write_text("{")
    (line,) = plan.price().lines()
    assert "not measured here" in line and "probe.json" in line and "\n" not in line


def test_hours_wall_time_disk_and_date(make) -> None:
    plan = make("seeds=[0,1]", "cluster.ranks_per_node=1", "cluster.max_parallel=1")
    measure(plan)
    # 20 s + 10 epochs of 100 or 200 s, each evaluated in 10 s: 1120 and 2120 s, twice
    price, disk = plan.price().lines(NOON)
    assert "4 runs left, 18.7 to 35.3 min each, 1.8 core hours, 1.8 h with 1 at a time" in price
    done = time.strftime("%Y-%m-%d %H:%M", time.localtime(NOON + 2 * (1120 + 2120)))
    assert f"done by {done} if started now" in price
    assert disk == "disk: data not prepared, checkpoints of these runs 720.0 MB"  # two of each run
    assert plan.price().device_hours == pytest.approx(2 * (1120 + 2120) / 3600)


def test_a_part_that_is_not_measured_is_named(make) -> None:
    plan = make("cluster.ranks_per_node=1")
    measure(plan, "sgdm")
    lines = plan.price().lines()
    assert "1 runs left (and 1 not measured)" in lines[0]
    assert lines[-1].startswith("not in the price: 1 runs, not measured here; `adarem probe ")


def test_what_is_done_costs_nothing_more(make) -> None:
    plan = make("optimizer=sgdm,adam", "cluster.ranks_per_node=1")
    measure(plan)
    plan.write()
    first, second = plan.runs
    run = first.run
    run.checkpoints.mkdir()
    (run.checkpoints / f"step-{250:09d}-{'0' * 16}.pt").touch()  # five of ten epochs
    left = {p.planned.run.path.name: p.left.seconds for p in plan.price().runs}
    assert left[run.path.name] == 20 + 5 * 110
    run.write_result({"status": "done", "top1": 50.0})
    assert [p.planned for p in plan.price().runs] == [second]
    second.run.write_result({"status": "diverged", "epoch": 1, "step": 3, "reason": "nan"})
    assert plan.price().lines() == ["price: every run is finished"]


def test_money_and_gpu_hours(make) -> None:
    gpus = ("cluster.device=cuda", "cluster.ranks_per_node=2", "cluster.max_parallel=1")
    plan = make("optimizer=sgdm", *gpus, "cluster.price_per_gpu_hour=2.5")
    measure(plan)
    price, _, money = plan.price().lines()
    assert "0.622 GPU hours" in price  # two for 1120 s
    assert money == "money: 1.56 at 2.5 a GPU hour"


@pytest.mark.parametrize(
    ("more", "at_a_time", "limit"),
    [
        ((), "all at a time", "00:46:00 a job"),  # 1.3 x 2120 s
        (("cluster.max_parallel=1",), "1 at a time", "00:46:00 a job"),
        (("cluster.time=1-00:00:00",), "all at a time", "1-00:00:00, by cluster.time"),
        (("cluster.time=2-00:00:00",), "all at a time", "2-00:00:00, by cluster.time"),
        (("cluster.time=null",), "all at a time", "as the site has it, by cluster.time"),
    ],
)
def test_slurms_time_limit_and_places(make, more: tuple[str, ...], at_a_time: str, limit: str) -> None:
    plan = make("cluster=slurm", "cluster.nodes=1", "cluster.ranks_per_node=2", *more)
    measure(plan)
    price, _, line = plan.price().lines()
    assert at_a_time in price and line.startswith(f"time limit: {limit}")


def test_the_estimate_of_a_run_that_has_begun_stays(make) -> None:
    plan = make("cluster.ranks_per_node=1")
    measure(plan)
    plan.write()
    before = read_estimates(plan.folder)
    assert {name: e.seconds for name, e in before.items()} == {"resnet18-sgdm-s0": 1120, "resnet18-adam-s0": 2120}
    RunDir(plan.folder / "resnet18-sgdm-s0").start_attempt({})
    for planned in plan.runs:
        keep_measurement(plan.runs_dir, measurement(planned.config, epoch_seconds=1.0))
    plan.write()
    after = {name: e.seconds for name, e in read_estimates(plan.folder).items()}
    assert after == {"resnet18-sgdm-s0": 1120, "resnet18-adam-s0": 130}
    assert json.loads(estimate_file(plan.folder).read_text())["format"] == 1


def test_trials_of_a_search_with_halving_count_for_what_they_train_on_average(tmp_path: Path) -> None:
    words = [
        "grid=table2_search", "data=digits", f'data.root="{tmp_path}"', f'runs_dir="{tmp_path / "runs"}"',
        "optimizer=sgdm", "cluster.ranks_per_node=1", "grid.halving.rungs=[2]", "grid.draw.trials=9",
        "grid.halving.keep=1/3",
    ]  # fmt: skip
    plan = make_plan(words)
    measure(plan, steps_per_epoch=50)
    priced = plan.price().runs
    assert len(priced) == 9
    epochs = (9 * 2 + 3 * 8) / 9
    assert priced[0].left.seconds == pytest.approx(20 + epochs * 100 + 5 * 10)
    assert priced[0].to_its_end.seconds == pytest.approx(20 + 10 * 110)
