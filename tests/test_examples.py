"""examples/: each file runs as docs/examples.md says, learns, and continues from a checkpoint to the same weights."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.support import ROOT

PAGE = ROOT / "docs" / "examples.md"
BLOCKS = re.findall(r"^```(\S+)[^\n]*\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)

ACCURACY = 0.9  # of 360 digits; chance is 0.1
STEPS = 23  # an epoch: 1,437 images in batches of 64


class Example(NamedTuple):
    epochs: int
    sphere: str  # the option that selects AdaRem-S
    last: str  # the last checkpoint


EXAMPLES = {
    "plain_torch": Example(8, "--optimizer=adarem_s", "checkpoints/plain_torch/epoch8.pt"),
    "with_timm": Example(6, "--opt=adarems", "checkpoints/timm/last.pth.tar"),
    "with_lightning": Example(8, "--optimizer=adarem_s", "checkpoints/lightning/epoch=7.ckpt"),
    "with_transformers": Example(8, "--optimizer=adarem_s", "checkpoints/transformers/checkpoint-184"),
}


def commands(name: str) -> list[str]:
    """The lines of the page that run this example: the first from the start, the second from a checkpoint."""
    return [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if f"/{name}.py" in line]


def run(command: str, *options: str, cwd: Path) -> str:
    """Runs a line of the page, with this interpreter for .venv/bin/python; returns what it prints."""
    python, *words = shlex.split(command)
    assert python == ".venv/bin/python"
    done = subprocess.run(
        [sys.executable, *words, *options],
        cwd=cwd, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def load(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights and the optimizer's state in a checkpoint of any of the frameworks."""
    if checkpoint.is_dir():
        from safetensors.torch import load_file

        return load_file(checkpoint / "model.safetensors"), torch.load(checkpoint / "optimizer.pt")
    content = torch.load(checkpoint)
    weights = content["model"] if "model" in content else content["state_dict"]
    return weights, content["optimizer"] if "optimizer" in content else content["optimizer_states"][0]


def folder(place: Path) -> Path:
    """An empty folder that holds the examples."""
    place.mkdir()
    (place / "examples").symlink_to(ROOT / "examples")
    return place


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adarem", "adarem_s"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_learns_and_resumes_to_the_same_weights(name: str, optimizer: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    options = [example.sphere] if optimizer == "adarem_s" else []
    start, resume = commands(name)

    complete = folder(tmp_path / "complete")
    printed = run(start, *options, cwd=complete)
    assert len(re.findall(r"^.*accuracy.*epoch|^epoch.*accuracy", printed, re.MULTILINE)) >= example.epochs
    assert float(re.findall(r"final test accuracy ([\d.]+)", printed)[0]) > ACCURACY

    weights, state = load(complete / example.last)
    assert {group["decay_every"] for group in state["param_groups"]} == {STEPS}
    assert {int(of["step"]) for of in state["state"].values()} == {STEPS * example.epochs}
    assert any(group.get("spherical") for group in state["param_groups"]) == (optimizer == "adarem_s")

    resumed, checkpoint = folder(tmp_path / "resumed"), shlex.split(resume)[-1]
    (resumed / checkpoint).parent.mkdir(parents=True)
    if (complete / checkpoint).is_dir():
        shutil.copytree(complete / checkpoint, resumed / checkpoint)
    else:
        shutil.copy(complete / checkpoint, resumed / checkpoint)
    run(resume, *options, cwd=resumed)
    weights_after, state_after = load(resumed / example.last)
    torch.testing.assert_close(weights_after, weights, rtol=0, atol=0)
    torch.testing.assert_close(state_after["state"], state["state"], rtol=0, atol=0)


def test_every_example_is_on_the_page_and_run() -> None:
    files = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert files == EXAMPLES.keys()
    shown = [block for kind, block in BLOCKS if kind != "bash"]
    assert shown == [f'--8<-- "examples/{name}.py"\n' for name in EXAMPLES]  # the site shows the file itself
    lines = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
    assert lines == [line for name in EXAMPLES for line in commands(name)]
