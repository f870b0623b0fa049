import json
from dataclasses import replace
from pathlib import Path

import pytest

from adarem.run import measurements
from adarem.run.errors import UserError
from adarem.run.measurements import Measurements, keep_measurement, probe_file, read_measurements, subject
from tests.support.measured import measurement
from tests.support.sweeps import make_config


def digits(named: str = "sgdm", seed: int = 0, **changed: dict):
    return make_config("resnet18", named, seed, data="digits", changed=changed)


@pytest.mark.parametrize(
    ("same", "changed"),
    [
        (True, {"optimizer": {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.5}}),
        (True, {"scale": {"epochs": 3, "lr_factor": 1.0}}),
        (True, {"scale": {"micro_batch_size": 32}}),  # of two ranks: one pass
        (True, {"data": {"root": "/elsewhere", "beton_dir": "/elsewhere/ffcv"}}),
        (True, {"train": {"eval_every": 2}}),
        (True, {"cluster": {"partition": "other", "max_parallel": 3, "price_per_gpu_hour": 2.0}}),
        (False, {"optimizer": {"nesterov": True}}),
        (False, {"scale": {"global_batch_size": 128}}),
        (False, {"scale": {"micro_batch_size": 16}}),
        (False, {"scale": {"precision": "bf16"}}),
        (False, {"data": {"train_crop": 64}}),
        (False, {"data": {"workers": 2}}),
        (False, {"data": {"holdout": 100}}),
        (False, {"train": {"compile": True}}),
        (False, {"train": {"clip_grad_norm": 1.0}}),
        (False, {"cluster": {"ranks_per_node": 1}}),
        (False, {"cluster": {"threads_per_rank": 2}}),
    ],
)
def test_what_decides_the_speed_is_the_subject(same: bool, changed: dict) -> None:
    assert (subject(digits()) == subject(digits(**changed))) is same
    assert subject(digits()) == subject(digits(seed=7))
    assert subject(digits()) != subject(digits("adam"))


def test_a_second_measurement_takes_the_place_of_the_first(tmp_path: Path) -> None:
    keep_measurement(tmp_path, measurement(digits()))
    keep_measurement(tmp_path, measurement(digits("adam")))
    again = measurement(digits(), epoch_seconds=7.0)
    keep_measurement(tmp_path, again)
    found = read_measurements(tmp_path)
    assert found == [measurement(digits("adam")), again]  # as they were, through JSON


def test_entries_of_another_machine_or_torch_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    here = measurement(digits())
    assert Measurements([here]).of(digits(seed=3)) == here
    assert Measurements([here]).elsewhere(digits()) is None
    away = replace(here, machine={**here.machine, "cpu": "another"}, cpu="another")
    known = Measurements([away])
    assert known.of(digits()) is None and known.elsewhere(digits()) == "measured on node1 (another)"
    assert Measurements([away, here]).of(digits()) == here
    monkeypatch.setattr(measurements, "torch_version", lambda: "9.9")
    known = Measurements([here])
    assert known.of(digits()) is None and known.elsewhere(digits()) == f"measured with torch {here.torch}"


def test_slurms_nodes_are_known_by_what_jobs_ask_for() -> None:
    gpu, other = ({"name": "slurm", "partition": p} for p in ("gpu", "debug"))
    known = Measurements([measurement(digits(cluster=gpu))])
    assert known.of(digits(cluster=gpu)) is not None
    assert known.of(digits(cluster=other)) is None and known.of(digits()) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 1, "measurements": [{"torch": 1}]}'])
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str) -> None:
    probe_file(tmp_path).write_text(text)
    with pytest.raises(UserError, match="probe.json") as e:
        read_measurements(tmp_path)
    assert "\n" not in str(e.value)


def test_images_per_second_and_cpu_seconds_per_image() -> None:
    m = measurement(digits())
    assert m.units_per_s_of_a_rank == 320 and m.evaluated_per_s == 100
    assert m.cpu_seconds_per_unit == pytest.approx(50 / 64_000)
    assert json.dumps(m.subject)
