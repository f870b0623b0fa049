"""What the process that forks ranks imports: enough for a training, and nothing that a fork cannot take over."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import json, os, sys
import adarem.train.preloaded
import torch, numpy as np
print(json.dumps({
    "tasks": len(os.listdir("/proc/self/task")), "cuda": torch.cuda.is_initialized(),
    "known": [m in sys.modules for m in ("torch._dynamo", "torchvision", "adarem.train.train", "numba")],
    "not": [m in sys.modules for m in ("ffcv", "wandb", "hydra", "timm")],
}))
sys.stdout.flush()
np.random.seed(0)
for _ in range(2):
    if not os.fork():
        print(np.random.rand(), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def lines() -> list[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_has_what_takes_long_and_can_be_forked(lines: list[str]) -> None:
    found = json.loads(lines[0])
    assert found == {"tasks": 1, "cuda": False, "known": [True] * 4, "not": [False] * 4}


def test_forks_draw_other_numbers_from_numpy(lines: list[str]) -> None:
    assert len(set(lines[1:])) == 2
