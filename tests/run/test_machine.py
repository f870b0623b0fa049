from pathlib import Path

import pytest

from adarem.run.machine import available_memory, cores, cpu_name, gpu_names, gpus_to_use


def test_what_there_is_on_every_machine() -> None:
    assert cpu_name() and cores() >= 1
    assert 0 < available_memory() < 2**50


def test_gpus_by_the_drivers_files(tmp_path: Path) -> None:
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
    assert gpu_names(tmp_path) == ["NVIDIA H200", "NVIDIA H200"]
    assert gpu_names(tmp_path / "none") == []


@pytest.mark.parametrize(("visible", "expected"), [("0,1,3", 3), ("", 0), ("2,-1,3", 1), ("GPU-8f3a", 1)])
def test_the_gpus_that_a_process_may_use(monkeypatch: pytest.MonkeyPatch, visible: str, expected: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_to_use() == expected
