"""FFCV is imported at one version, and what it changes in the process is undone."""

import subprocess
import sys

import torch

from adarem.data.loaders import open_train


def test_other_ffcv_version_is_refused():
    program = """
import importlib.metadata
real = importlib.metadata.version
importlib.metadata.version = lambda name: "1.1.0" if name == "ffcv" else real(name)
import adarem.data.ffcv.library
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert "UserError: data.backend=ffcv: needs ffcv 1.0.2, found 1.1.0; run `pip install" in done.stderr


def test_torchs_thread_count_stays(photos):
    """FFCV sets it for the process: on import and with each loader."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        loader = open_train(photos(), global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
        next(loader.epoch(0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
