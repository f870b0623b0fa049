"""examples/: each file runs as docs/examples.md says, learns, and continues from a checkpoint to the same weights."""

import hashlib
import json
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
from tests.support.blocks import Block, environment
from tests.support.blocks import run as run_block
from tests.support.checkout import copy_checkout

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


PACKAGE = ROOT / "examples" / "own_optimizer"


@pytest.mark.slow
def test_an_optimizer_of_ones_own_stands_in_the_table(tmp_path: Path) -> None:
    """examples/own_optimizer: its README, typed as printed; installed without an index, trained, and reported."""
    place = copy_checkout(tmp_path / "adarem")
    own = re.findall(r"^```bash\n(.*?)^```", (PACKAGE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    said = run_block(Block("README.md", 1, "bash", "\n".join(own), None, None), place, environment(place))
    assert said is None, said

    results = place / "results" / "braked-digits-smoke"
    table = (results / "table.md").read_text()
    assert table.startswith("# SGD whose momentum brakes, next to SGDM\n") and "REHEARSAL" not in table
    assert "- Data: embedded digits: 1,437 training images" in table and "| | | SGDM | Braked SGD |" in table
    assert re.search(
        r"\| Braked SGD \| 0\.4 × 0\.25 \| not stated \| 0\.0001, how: not stated \| momentum 0\.9, brake", table
    )
    file = place / "build" / "braked" / "braked" / "__init__.py"
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    source = f"Braked SGD from braked:BrakedSGD, braked-sgd 0.1.0, __init__.py ({sha256[:12]})"
    assert f"- Imported optimizers: {source}" in table
    assert len(re.findall(r"^- ShuffleNetV2-0.5 Top-1: Braked SGD − SGDM = ", table, re.MULTILINE)) == 1
    for name in ("table.tex", "report.html", "table.csv", "runs.csv"):
        assert "Braked SGD" in (results / name).read_text(), name
    runs = sorted((place / "runs" / "braked-digits-smoke").glob("*-braked-s*"))
    assert len(runs) == 2
    for run_dir in runs:
        start, end = map(json.loads, (run_dir / "attempts.jsonl").read_text().splitlines())
        recorded = {k: start["optimizer"][k] for k in ("name", "distribution", "version", "sha256")}
        assert recorded == {
            "name": "braked:BrakedSGD", "distribution": "braked-sgd", "version": "0.1.0", "sha256": sha256,
        }  # fmt: skip
        assert end["why"] == "done"
