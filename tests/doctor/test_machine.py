"""Made-up machines that lack space."""

import pytest

from adarem.doctor import machine
from adarem.doctor.check import Outcome
from tests.support.doctor import found


def test_a_small_shared_memory_and_a_full_disk(answers: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = machine.shutil.disk_usage("/")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: usage._replace(free=64e6))
    assert found(None, "/dev/shm")[0].ok is False and "--shm-size" in found(None, "/dev/shm")[0].fix
    assert found(None, "disk")[0].ok is False
