from pathlib import Path

import pytest

from adarem.run.errors import UserError
from adarem.run.estimate import (
    FLAT_TIME,
    estimate,
    estimate_file,
    read_estimates,
    time_limit,
    wall_seconds,
    write_estimates,
)
from tests.support.measured import measurement
from tests.support.sweeps import CONFIGS, make_config


def test_a_run_takes_its_start_its_epochs_and_its_evaluations() -> None:
    config = make_config("resnet18", "sgdm", data="digits")  # 10 epochs, each evaluated
    found = estimate(config, measurement(config))
    assert (found.seconds, found.cpu_seconds) == (20 + 10 * (100 + 10), 10 + 10 * (50 + 5))
    assert found.device_hours == pytest.approx(2 * 1120 / 3600) and not found.cuda
    assert estimate(config, measurement(config), steps_done=500).seconds == 20
    left = estimate(config, measurement(config), steps_done=125)  # 2.5 epochs
    assert left.seconds == 20 + 7.5 * 100 + 8 * 10
    assert estimate(config, measurement(config), epochs=4).seconds == 20 + 4 * 110


def test_evaluations_that_are_not_due_cost_nothing() -> None:
    config = make_config("resnet18", "sgdm", data="digits", changed={"train": {"eval_every": 4}})
    assert estimate(config, measurement(config)).seconds == 20 + 10 * 100 + 3 * 10  # after 4, 8 and 10


@pytest.mark.parametrize(("at_a_time", "expected"), [(1, 60), (2, 40), (3, 30), (None, 30), (9, 30)])
def test_places_are_filled_as_they_become_free(at_a_time: int | None, expected: float) -> None:
    assert wall_seconds([10, 20, 30], at_a_time) == expected
    assert wall_seconds([], at_a_time) == 0


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(3600, "01:18:00"), (1, "00:10:00"), (61, "00:10:00"), (80_000, "1-04:54:00"), (1e9, FLAT_TIME)],
)
def test_a_limit_has_a_margin_and_bounds(seconds: float, expected: str) -> None:
    assert time_limit(seconds) == expected


def test_the_flat_limit_is_that_of_the_config() -> None:
    assert f"time: {FLAT_TIME}" in (CONFIGS / "cluster" / "slurm.yaml").read_text()


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = make_config("resnet18", "sgdm", data="digits")
    assert read_estimates(tmp_path) == {}
    write_estimates(tmp_path, {"a": estimate(config, measurement(config))})
    assert read_estimates(tmp_path) == {"a": estimate(config, measurement(config))}
    estimate_file(tmp_path).write_text('{"format": 1, "runs": {"a": {"seconds": "long"}}}')
    with pytest.raises(UserError, match="estimate.json.*remove it and plan again"):
        read_estimates(tmp_path)
