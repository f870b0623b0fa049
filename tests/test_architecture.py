"""docs/architecture.md against the tree: its modules, paths, names, imports and dependencies are those of the code."""

import re
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.test_layers import MAY_IMPORT

SRC = ROOT / "src" / "adarem"
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def section(heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"no section {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row in ``text``, without headings and rules."""
    lines = text.splitlines()
    bodies = [line for before, line in zip(lines, lines[1:], strict=False) if before[:1] == line[:1] == "|"]
    return [re.split(r"\s*\|\s*", line)[1:-1] for line in bodies if not line.startswith("| ---")]


def file_of(path: str) -> Path:
    """``path`` in the checkout or in the package."""
    return next((p for p in (ROOT / path, SRC / path) if p.is_file()), ROOT / path)


def defines(file: Path, name: str) -> bool:
    """Whether a module defines a function, class, constant or ``Class.method``. Other files need only hold the word."""
    text = file.read_text()
    if file.suffix != ".py":
        return re.search(rf"\b{name}\b", text) is not None
    owner, _, member = name.rpartition(".")
    if not owner:
        return re.search(rf"^(?:(?:def|class) {name}\b|{name}\b[^\n=]*= )", text, re.MULTILINE) is not None
    body = re.search(rf"^class {owner}\b.*?\n(?=\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return body is not None and re.search(rf"^    def {member}\b", body[0], re.MULTILINE) is not None


def test_every_module_is_listed_once_and_no_other() -> None:
    named = [row[0].strip("`") for row in rows(section("Every module"))]
    modules = [
        str(p.relative_to(SRC)) for p in SRC.rglob("*") if p.suffix in (".py", ".cpp", ".c") and p.name != "__init__.py"
    ]
    assert sorted(named) == sorted(modules)


def test_the_packages_may_import_what_the_layer_table_says() -> None:
    named = {row[0].strip("`"): row[4] for row in rows(section("Packages"))}
    table = {k: v for k, v in MAY_IMPORT.items() if not k.startswith("__") and k != "cli"}
    assert {k: set() if v == "nothing" else set(v.split(", ")) for k, v in named.items()} == table


def test_questions_are_answered_by_what_exists() -> None:
    answers = {row[0]: row[1] for row in rows(section("Where is …?"))}
    assert len(answers) >= 20 and all(q.startswith("Where ") and q.endswith("?") for q in answers)
    wrong = []
    for question, answer in answers.items():
        file = None
        for word in re.findall(r"`([^`]+)`", answer):
            if "/" in word or word.endswith((".py", ".md")):
                file = file_of(word)
                if not file.is_file():
                    wrong.append(f"{question} {word}: no such file")
            elif file is None or (file.is_file() and not defines(file, word)):
                wrong.append(f"{question} {word}: not in {file}")
        assert file, question
    assert not wrong


def test_dependencies_are_those_of_pyproject_each_with_a_purpose() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    named = [name for row in rows(section("Dependencies")) if row[1] for name in row[0].split(", ")]
    assert sorted(named) == sorted({re.split(r"[<>=!\[ ]", requirement)[0] for requirement in wanted})


@pytest.mark.parametrize(
    ("name", "there"),
    [("Trainer", True), ("Trainer.fit", True), ("Trainer.fitt", False), ("fit", False), ("Batch", False)],
)
def test_a_name_counts_only_where_it_is_defined(name: str, there: bool) -> None:
    assert defines(SRC / "train" / "trainer.py", name) is there
