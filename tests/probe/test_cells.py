"""The cells of a folder, with a stand-in for the ranks' program; the real one is in test_probe.py."""

import json
import sys
from pathlib import Path

import pytest

from adarem.probe.cells import keep, measure_cells, new_folder
from adarem.run.measurements import read_measurements
from tests.support.sweeps import make_config

# Takes the place of adarem.probe.rank: fails as the run's seed says, or has room for so many images a pass.
RANK = """
import json, sys, time, yaml
from pathlib import Path
path, seed = Path(sys.argv[1]), 0
config = yaml.safe_load((path / "config.yaml").read_text())
size = config["scale"].get("micro_batch_size") or 0
if config["seed"] == 13:
    (path / "problem").write_text("data.root: no such folder; give another")
    sys.exit(2)
if config["seed"] == 14:
    sys.exit("died of something")
if size > ROOM:
    (path / "out-of-memory").touch()
    sys.exit(1)
record = dict(device="cpu", cpu="a", hosts=["b"], unit="images", ranks=2, units_per_s=100.0, loader_share=0.0,
    memory_bytes=1, checkpoint_bytes=2, first_step_seconds=1.0, before_record_seconds=0.5, start_seconds=2.0,
    start_cpu_seconds=1.0, ended=time.time(), counted_cpu_seconds=0.0, probe_only_seconds=0.0, steps_per_epoch=5,
    epoch_seconds=3.0, epoch_cpu_seconds=2.0, evaluated=10, evaluation_seconds=1.0, evaluation_cpu_seconds=1.0,
    steps=9, chunks=3, epochs=0)
(path / "measured.json").write_text(json.dumps(record))
"""


def starter(room: int = 10**9):
    def start(config, module):
        assert module[:2] == ["-m", "adarem.probe.rank"]
        return [sys.executable, "-c", RANK.replace("ROOM", str(room)), *module[2:]]

    return start


def test_a_cell_that_fails_is_one_line_and_the_others_are_measured(tmp_path: Path) -> None:
    configs = [make_config("resnet18", o, s, data="digits") for o, s in (("sgdm", 13), ("adam", 0), ("adamw", 14))]
    folder, said = new_folder(tmp_path, configs, []), []
    assert keep(measure_cells(folder, 1.0, starter()), tmp_path, said.append) == 2
    assert said[0] == "ResNet-18, SGDM: not measured: data.root: no such folder; give another"
    assert said[1].startswith("ResNet-18, Adam: 50 images/s a rank x 2")
    assert said[2] == "ResNet-18, AdamW: not measured: died of something"
    (m,) = read_measurements(tmp_path)
    assert m.start_seconds >= 2.0 and m.start_cpu_seconds >= 1.0  # with the command's own
    assert m.largest_micro_batch_size is None


@pytest.mark.parametrize(("room", "largest"), [(10**9, 32), (31, 16), (8, 8), (1, 1)])
def test_the_largest_micro_batch_is_found_by_bisection(tmp_path: Path, room: int, largest: int) -> None:
    config = make_config("resnet18", "sgdm", data="digits")  # 32 images a rank
    folder = new_folder(tmp_path, [config], [config])
    said: list[str] = []
    assert keep(measure_cells(folder, 1.0, starter(room)), tmp_path, said.append) == 0
    assert said[0].endswith(f"scale.micro_batch_size up to {largest}")
    (m,) = read_measurements(tmp_path)
    assert m.largest_micro_batch_size == m.subject["scale.micro_batch_size"] == largest
    assert json.loads((tmp_path / "probe.json").read_text())["format"] == 1


def test_no_size_fits(tmp_path: Path) -> None:
    config = make_config("resnet18", "sgdm", data="digits")
    said: list[str] = []
    folder = new_folder(tmp_path, [config], [config])
    assert keep(measure_cells(folder, 1.0, starter(0)), tmp_path, said.append) == 1
    assert "scale.micro_batch_size=1: takes more memory than there is" in said[0]
