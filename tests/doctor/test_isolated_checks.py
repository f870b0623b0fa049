"""The checks that run in a process of their own, for real on this machine."""

import importlib.metadata
import json

import pytest

from adarem.doctor.check import Outcome, run_isolated


def test_ffcv_writes_and_reads_on_this_machine() -> None:
    """Encodes and decodes through FFCV for real, in a process of its own."""
    assert run_isolated("ffcv") == Outcome(True, f"{importlib.metadata.version('ffcv')}, writes and reads back exactly")


def test_gloo_reduces_on_this_machine() -> None:
    assert run_isolated("gloo") == Outcome(True, "all_reduce works with one rank")


def test_torch_is_described() -> None:
    torch = pytest.importorskip("torch")
    ok, line, _ = run_isolated("torch")
    assert ok and json.loads(line)["version"] == torch.__version__
