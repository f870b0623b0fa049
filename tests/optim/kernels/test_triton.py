"""The Triton kernels, and the step that launches them, in Triton's interpreter on the CPU."""

import os
import subprocess
import sys

import pytest

from tests.support import ROOT, scenario


@pytest.mark.slow
def test_triton_kernels_follow_the_reference_in_the_interpreter() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.scenario", "triton", "3"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("triton") == len(scenario.DTYPES)
