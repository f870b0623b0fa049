"""The doctor's exit code and what it prints."""

import pytest

from adarem.doctor import doctor
from adarem.doctor.check import Outcome
from adarem.run import exitcodes


def test_a_healthy_machine_passes_and_a_failure_fails(
    answers: dict[str, Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(None) == exitcodes.OK
    assert "✗" not in (out := capsys.readouterr().out) and "✓ ffcv" in out
    answers["ffcv"] = Outcome(False, "ImportError: libopencv_imgproc.so.406: cannot open shared object file")
    assert doctor(None) == exitcodes.FAILED
    out = capsys.readouterr().out
    assert "✗ ffcv" in out and "libopencv_imgproc" in out and "fix: make setup" in out and "1 problem" in out
