"""The doctor's exit code and what it prints."""

import subprocess
import sys
from pathlib import Path

import pytest

from adarem.doctor import doctor
from adarem.doctor.check import Outcome
from adarem.run import exitcodes
from adarem.run.config import RunConfig
from tests.support.doctor import found


def test_a_healthy_machine_passes_and_a_failure_fails(
    answers: dict[str, Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(None) == exitcodes.OK
    assert "✗" not in (out := capsys.readouterr().out) and "✓ ffcv" in out
    answers["ffcv"] = Outcome(False, "ImportError: libopencv_imgproc.so.406: cannot open shared object file")
    assert doctor(None) == exitcodes.FAILED
    out = capsys.readouterr().out
    assert "✗ ffcv" in out and "libopencv_imgproc" in out and "adarem[ffcv]" in out and "1 problem\n" in out


def test_files_in_place_of_packages_are_reported_check_by_check(tmp_path: Path) -> None:
    """The process of the doctor imports the standard library alone; what it starts meets the files, and says so."""
    for name in ("numpy", "yaml", "packaging"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not the package')")
    command = [sys.executable, "-m", "adarem", "doctor"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == exitcodes.FAILED and done.stderr == ""
    for name in ("numpy", "yaml"):
        assert f"✗ {name:<14} {tmp_path / name}.py is imported in place of the real one" in done.stdout
    assert "✓ python" in done.stdout and "✓ disk" in done.stdout and "problems" in done.stdout
    composed = subprocess.run([*command, "data=digits"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert composed.returncode == exitcodes.FAILED and composed.stderr == ""
    assert composed.stdout.startswith(f"✗ config         yaml: {tmp_path / 'yaml.py'} is imported in place")


def test_a_check_whose_packages_are_missing_fails_alone(
    answers: dict[str, Outcome], config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(data: object) -> None:
        raise ModuleNotFoundError("No module named 'no_such_package'", name="no_such_package")

    monkeypatch.setattr("adarem.doctor.inputs.dataset", missing)
    (data,) = found(config, "data")
    assert (data.ok, data.found) == (False, "no_such_package: not installed")
    assert data.fix == "run `pip install 'adarem[harness]'`"
    assert found(config, "disk")[0].ok
