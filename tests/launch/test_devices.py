"""GPUs and cores are handed out to one run at a time, also between launches."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from adarem.launch import devices
from adarem.launch.devices import Device, DevicePool, device_pool, gpus
from adarem.run.errors import UserError

INSTALLED = {"0": "GPU-aaa", "1": "GPU-bbb", "2": "GPU-ccc", "3": "GPU-ddd"}


def fake(folder: Path, *names: str) -> DevicePool:
    return DevicePool("cuda", [Device(name, name) for name in names], folder)


def test_a_device_is_handed_out_once_until_it_is_released(tmp_path: Path) -> None:
    mine, others = fake(tmp_path, "a", "b", "c"), fake(tmp_path, "c", "b")
    first = mine.take(2)
    assert first is not None and first.names == ("a", "b") and str(first) == "GPUs a, b"
    assert mine.environment(first) == {"CUDA_VISIBLE_DEVICES": "a,b"}
    assert others.take(2) is None
    second = others.take(1)
    assert second is not None and second.names == ("c",) and mine.take(1) is None
    first.release()
    third = mine.take(2)
    assert third is not None and third.names == ("a", "b")


def test_a_device_stays_taken_while_a_process_that_inherited_it_runs(tmp_path: Path) -> None:
    pool = fake(tmp_path, "a")
    lease = pool.take(1)
    assert lease is not None
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=lease.descriptors)
    lease.release()
    assert pool.take(1) is None
    sleeper.kill()
    sleeper.wait()
    assert pool.take(1) is not None


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, [("GPU-aaa", "GPU-aaa"), ("GPU-bbb", "GPU-bbb"), ("GPU-ccc", "GPU-ccc"), ("GPU-ddd", "GPU-ddd")]),
        ("2,0", [("2", "GPU-ccc"), ("0", "GPU-aaa")]),
        (" 1 , GPU-d", [("1", "GPU-bbb"), ("GPU-d", "GPU-ddd")]),
        ("3,-1,0", [("3", "GPU-ddd")]),
        ("", []),
        ("MIG-1/2", [("MIG-1/2", "MIG-1_2")]),
    ],
)
def test_only_gpus_that_the_launcher_may_see(visible: str | None, found: list[tuple[str, str]]) -> None:
    assert [(d.name, d.key) for d in gpus(visible, INSTALLED)] == found


def test_gpus_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, GPU-x'\necho '1, GPU-y'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert [d.name for d in device_pool("cuda").devices] == ["GPU-x", "GPU-y"]


def test_more_gpus_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cluster.ranks_per_node=2: one GPU each, and 1 can be used here; lower it"):
        fake(tmp_path, "a").check(2)


def test_a_run_that_needs_more_cores_than_there_are_gets_all() -> None:
    pool = device_pool("cpu")
    pool.check(10_000)
    lease = pool.take(10_000)
    assert lease is not None and lease.names == tuple(map(str, sorted(os.sched_getaffinity(0))))
    assert pool.environment(lease) == {}
    lease.release()


def test_the_folder_of_locks_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAREM_LOCKS", raising=False)
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = device_pool("cpu").folder
    assert folder == tmp_path / f"adarem-{os.getuid()}" and stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(UserError, match="a link, or another user's; give a folder of your own in ADAREM_LOCKS"):
        device_pool("cpu")
