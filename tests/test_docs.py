"""README.md and docs/ against the tree: the links, paths, tests, commands, modules and targets that they name exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from adarem.cli import _parser
from tests.support import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "results" / "paper" / "README.md",
]
# Folders of the checkout, and the packages of src/adarem and of tests, whose files pages name without these.
TREE = ("src", "configs", "docs", "tests", "scripts", "slurm", "benchmarks", "results", "examples")
ROOMS = {p.parent.name for place in ("src/adarem", "tests") for p in (ROOT / place).glob("*/__init__.py")}


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


def code(page: Path) -> list[str]:
    """Every command line and code span of a page: fenced and indented lines, text in backticks."""
    text = page.read_text()
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (.*)$", rest, re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^    .*$", "", rest, flags=re.MULTILINE))
    return [
        *(line for block in fenced for line in block.splitlines()),
        *indented,
        *(s.replace("\n", " ") for s in spans),
    ]


def missing_files(page: Path) -> Iterator[str]:
    """Paths of the tree and source files of the package; ``*`` and ``{a,b}`` are patterns, ``<grid>`` is any name."""
    tree = rf"(?:{'|'.join(TREE)})/[\w.*/<>{{}},-]*[\w*}}/]"
    source = rf"(?:{'|'.join(ROOMS)})/[\w./-]+\.(?:py|cpp|c)\b"
    lines = code(page)
    made = {name for line in lines for name in re.findall(r"^cat > (\S+) <<", line)}
    for line in lines:
        if "no such" in line:  # an error message, quoted
            continue
        if re.fullmatch(r"(?:[a-z_]+/)*test_\w+", line) and not any((ROOT / "tests").glob(f"**/{line}.py")):
            yield line
        for name in re.findall(rf"(?<![\w/.<$])({tree}|{source})", line):
            written = name.startswith("results/") and not name.startswith(("results/paper/", "results/rehearsals/"))
            if name not in made and not written and not any(map(exists, (name, f"src/adarem/{name}", f"tests/{name}"))):
                yield name


def exists(path: str) -> bool:
    pattern = re.sub(r"<\w+>", "*", path.rstrip("/"))
    choice = re.search(r"\{([^}]*)\}", pattern)
    if choice is None:
        return next(ROOT.glob(pattern), None) is not None
    return all(exists(pattern.replace(choice[0], word)) for word in choice[1].split(","))


def missing_commands(page: Path) -> Iterator[str]:
    """``adarem VERB [ACTION]``, ``python -m MODULE`` and ``make TARGET``."""
    verbs = actions_of(_parser())
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in code(page):
        if found := re.match(r"(?:\.venv/bin/)?adarem ([a-z]+)(?: ([a-z]+)\b)?", line):
            verb, action = found.groups()
            if verb not in verbs or (verbs[verb] and action and action not in verbs[verb]):
                yield line
        if (found := re.search(r"python -m ([\w.]+)", line)) and not is_module(found[1]):
            yield line
        if (found := re.match(r"make ([a-z][\w-]*)", line)) and found[1] not in targets:
            yield line


def is_module(name: str) -> bool:
    path = name.replace(".", "/")
    files = (f"{path}.py", f"src/{path}.py", f"src/{path}/__main__.py")
    return name in ("pytest", "build") or any((ROOT / file).is_file() for file in files)


def actions_of(parser) -> dict[str, set[str]]:
    """Every verb of the command line with its actions, where it has some."""
    found = {}
    for action in parser._subparsers._group_actions:
        for verb, of_verb in action.choices.items():
            inner = of_verb._subparsers._group_actions if of_verb._subparsers else []
            found[verb] = {name for a in inner for name in a.choices}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_files_and_commands_exist(page: Path) -> None:
    assert [*broken_links(page), *missing_files(page), *missing_commands(page)] == []


@pytest.mark.parametrize(
    "line",
    [
        "[a](no-such-page.md)",
        "[a](docs/cluster.md#no-such-heading)",
        "`src/adarem/nowhere.py`",
        "`configs/grid/{table1,table9}.yaml`",
        "`train/nowhere.py`",
        "`faults/test_nothing`",
        "`adarem mend`",
        "`adarem wandb mend runs/table2`",
        "`python -m adarem.nowhere`",
        "    make nothing",
    ],
)
def test_what_does_not_exist_is_found(line: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{line}\n")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    assert [*broken_links(page), *missing_files(page), *missing_commands(page)]
