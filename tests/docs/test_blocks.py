"""Every code block of README.md and docs/ runs as it is printed, or is marked with the reason why it does not."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.blocks import PAGES, Block, blocks, blocks_of, environment, fault, run
from tests.support.checkout import copy_checkout
from tests.support.sweeps import finish, make_config, write_grid

# Pages that make their own runs, in a checkout where nothing has been run. The others find what
# `make reproduce-table2` leaves, for the blocks that look at it.
FROM_NOTHING = ("docs/start.md",)
RUNNING = [page for page in PAGES if any(b.runs for b in blocks(page))]
OPTIMIZERS = ("sgdm", "adam", "adamw", "adabound", "rmsprop", "adarem")


def test_every_block_is_run_or_marked() -> None:
    assert RUNNING and [f for page in PAGES for b in blocks(page) if (f := fault(b))] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```\nadarem plan\n```", "language ''"),
        ("```sh\nadarem plan\n```", "language 'sh'"),
        ("    adarem plan", "language ''"),
        ("```text\n.venv/bin/adarem plan\n```", "commands in a block of text"),
        ('```{.python}\n--8<-- "examples/nowhere.py"\n```', "examples/nowhere.py: no such file"),
        (
            "<!-- run by: tests/test_nothing.py -->\n```bash\nadarem plan\n```",
            "tests/test_nothing.py, which is no file",
        ),
    ],
)
def test_what_is_neither_run_nor_marked_is_found(text: str, said: str) -> None:
    (block,) = blocks_of(text, "page.md")
    assert said in str(fault(block))


def test_a_mark_counts_for_the_next_block_alone() -> None:
    text = (
        "<!-- not run: needs Slurm -->\n```bash\nsqueue\n```\n\n```bash\nls\n```\n<!-- not run: -->\n```bash\nls\n```\n"
    )
    assert [b.reason for b in blocks_of(text, "page.md")] == ["needs Slurm", None, None]


@pytest.mark.parametrize(("code", "fails"), [("true", False), ("false\ntrue", True), ("ls nowhere | cat", True)])
def test_a_block_fails_with_any_of_its_commands(code: str, fails: bool, tmp_path: Path) -> None:
    block = Block("page.md", 1, "bash", code, None, None)
    assert (run(block, tmp_path, environment(tmp_path)) is not None) is fails


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``runs/`` as after `make reproduce-table2`, without its minutes: its files, with made-up figures."""
    paper = write_grid(tmp_path_factory.mktemp("rehearsal"), "table2", "digits", "rehearsal")
    folder = paper.rename(paper.with_name(f"{paper.name}-searched"))
    for i, optimizer in enumerate(OPTIMIZERS):
        config = make_config("resnet18", optimizer, data="digits", changed={"wandb": {"mode": "auto"}})
        correct = np.arange(360) >= 5 + i
        run = finish(folder, config, float(100 * correct.mean()), world_size=2, correct=correct)
        run.log_file.write_text("12:00:00 epoch 10 of 10\n")
    return folder.parent


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING)
def test_blocks_run_as_printed(page: str, rehearsal: Path, tmp_path: Path) -> None:
    place = copy_checkout(tmp_path / "adarem")
    for git in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *git], cwd=place, check=True)
    if page not in FROM_NOTHING:
        shutil.copytree(rehearsal, place / "runs")
    failures = [said for block in blocks(page) if block.runs and (said := run(block, place, environment(place)))]
    assert not failures, "\n".join(failures)
