"""The code blocks of README.md and docs/, and running them as they are printed.

    python -m tests.support.blocks

lists every block: those that a test runs, and those that are marked with a comment right before them,
``<!-- not run: REASON -->`` or ``<!-- run by: tests/PATH -->``, where another test runs the block.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from tests.support import ROOT

PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))]
RUN = ("bash", "python")
SHOWN = ("text", "yaml")  # output, diagrams, files: no commands
INCLUDED = re.compile(r"--8<-- \"(.*)\"\n")  # a file that the site shows in the block's place
MARK = re.compile(r"\s*<!-- (not run|run by): (\S.*?) -->\s*", re.DOTALL)
COMMAND = re.compile(
    r"^(\$ |(\.venv/bin/)?(adarem|python3?|wandb|pip|pytest|make|sbatch|squeue|git|cd|tail) )", re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str  # "" where the page names none
    code: str
    marked: str | None  # "not run", "run by"
    reason: str | None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUN and self.marked is None


def blocks(page: str) -> list[Block]:
    return list(blocks_of((ROOT / page).read_text(), page)) if (ROOT / page).exists() else []


def blocks_of(text: str, page: str) -> Iterator[Block]:
    comment = None
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "html_block":
            comment = MARK.fullmatch(token.content)
        elif token.type in ("fence", "code_block"):
            assert token.map
            marked, reason = comment.groups() if comment else (None, None)
            language = token.info.split()[0] if token.info else ""
            yield Block(page, token.map[0] + 1, language, token.content, marked, reason)
            comment = None
        else:
            comment = None


def fault(block: Block) -> str | None:
    """Why a block is neither run nor shown, in words."""
    if included := INCLUDED.fullmatch(block.code):
        return None if (ROOT / included[1]).is_file() else f"{block.place}: {included[1]}: no such file"
    if block.language not in (*RUN, *SHOWN):
        return f"{block.place}: language {block.language!r}; a fence needs one of {', '.join((*RUN, *SHOWN))}"
    if block.language in SHOWN and COMMAND.search(block.code):
        return f"{block.place}: commands in a block of {block.language}; print them in one of bash"
    if block.marked == "run by" and not (ROOT / str(block.reason)).is_file():
        return f"{block.place}: run by {block.reason}, which is no file"
    return None


def run(block: Block, place: Path, environment: dict[str, str]) -> str | None:
    """Runs a block in ``place`` and returns what went wrong, with the output, or None."""
    command = (
        ["bash", "-euo", "pipefail", "-c", block.code] if block.language == "bash" else ["python", "-c", block.code]
    )
    try:
        done = subprocess.run(
            command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{block.place}: not done after 600 s\n{block.code}"
    print(f"--- {block.place}\n{block.code}=== {done.returncode}\n{done.stdout}")
    return f"{block.place}: exit code {done.returncode}\n{block.code}{done.stdout[-2000:]}" if done.returncode else None


def environment(place: Path) -> dict[str, str]:
    """That of a user who works in the checkout ``place`` with its ``.venv`` active, and has no key of wandb."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "MAKE", "MFLAGS", "PYTEST", "CI"))}
    home = place.parent / "home"
    home.mkdir(exist_ok=True)
    caches = Path.home() / ".cache"  # of compiled code
    return env | {"PATH": f"{place}/.venv/bin:{env['PATH']}", "HOME": str(home), "XDG_CACHE_HOME": str(caches)}


def main() -> None:
    found = [b for page in PAGES for b in blocks(page)]
    executed = [b for b in found if b.runs]
    marked = [b for b in found if b.marked]
    print(f"{len(executed)} blocks are run:", *(f"  {b.place} ({b.language})" for b in executed), sep="\n")
    print(f"{len(marked)} blocks are marked:", *(f"  {b.place} {b.marked}: {b.reason}" for b in marked), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
