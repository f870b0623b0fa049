"""No public function takes or returns ``Any``: a reader sees what comes in and what goes out."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

SRC = ROOT / "src" / "adarem"


def functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The public functions of a module, and the public methods of its public classes, ``__init__`` among them."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_") or node.name == "__init__":
                yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node.body)


def naming_any(source: str) -> list[str]:
    found = []
    for function in functions(ast.parse(source).body):
        every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        every += [a for a in (function.args.vararg, function.args.kwarg) if a]
        hints = [h for h in (*(a.annotation for a in every), function.returns) if h]
        names = {n.id for h in hints for n in ast.walk(h) if isinstance(n, ast.Name)}
        if "Any" in names:
            found.append(f"{function.name}, line {function.lineno}")
    return found


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: str(p.relative_to(SRC)))
def test_no_public_signature_names_any(path: Path) -> None:
    assert naming_any(path.read_text()) == []


def test_the_check_finds_one() -> None:
    source = "class A:\n  def f(self, x: dict[str, Any]) -> int: ...\n  def _g(self) -> Any: ...\ndef h() -> Any: ...\n"
    assert naming_any(source) == ["f, line 2", "h, line 4"]
