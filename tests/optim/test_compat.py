"""Private names of torch are in compat.py and nowhere else in src, by the syntax tree."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from adarem.optim import compat
from tests.support import ROOT

SRC = ROOT / "src" / "adarem"
COMPAT = SRC / "optim" / "compat.py"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


# Private attributes of objects of torch, such as optimizer._group_tensors_by_device_and_dtype or tensor._version.
OF_OBJECTS = {
    name
    for cls in (torch.optim.Optimizer, torch.Tensor, nn.Module, torch.Generator)
    for name in dir(cls)
    if is_private(name)
}


def private_names(source: str) -> Iterator[str]:
    """Names of torch with a private part that a module imports or reads."""
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    of_torch = {"torch"}  # names that the module binds to torch or to a part of it
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "torch":
                    of_torch.add(alias.asname or "torch")
                    yield from [alias.name] if any(map(is_private, alias.name.split("."))) else []
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            for alias in node.names:
                of_torch.add(alias.asname or alias.name)
                full = f"{node.module}.{alias.name}"
                yield from [full] if any(map(is_private, full.split("."))) else []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root: ast.expr = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in of_torch or node.attr in OF_OBJECTS and node.attr not in own:
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr") and len(node.args) > 1:
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and name.value in OF_OBJECTS:
                yield name.value


@pytest.mark.parametrize(
    "path", [p for p in sorted(SRC.rglob("*.py")) if p != COMPAT], ids=lambda p: str(p.relative_to(SRC))
)
def test_no_other_module_uses_a_private_name_of_torch(path: Path) -> None:
    found = sorted(set(private_names(path.read_text())))
    assert not found, f"{path.name} uses {found}; import them from adarem.optim.compat"


@pytest.mark.parametrize(
    "source",
    [
        "import torch._dynamo",
        "from torch._C import Generator",
        "from torch.optim.optimizer import _use_grad_for_differentiable as wrap",
        "import torch\ntorch._foreach_add_([], 1)",
        "import torch as t\nt._C._log_api_usage_once('x')",
        "from torch.optim import Optimizer\nOptimizer._group_tensors_by_device_and_dtype([[]])",
        "def f(optimizer): return optimizer._cuda_graph_capture_health_check()",
        "def f(p): return p._version",
        "def f(o): return getattr(o, '_cuda_graph_capture_health_check')",
    ],
)
def test_the_search_finds_each_kind(source: str) -> None:
    assert list(private_names(source))


def test_each_private_name_has_a_comment_on_its_replacement() -> None:
    """Above an import of foreach functions or of one name, or on or above the line that uses it."""
    lines = COMPAT.read_text().splitlines()
    assert sum("In its place" in line or "In their place" in line for line in lines) >= 7
    assert {name for name in dir(compat) if name in compat.__all__} == set(compat.__all__)


def test_groups_are_by_device_and_type() -> None:
    params = [torch.ones(1), torch.ones(1, dtype=torch.float64), torch.ones(2)]
    assert sorted(compat.indices_by_device_and_dtype(params)) == [[0, 2], [1]]


def test_foreach_is_not_the_default_on_the_cpu_nor_under_autograd() -> None:
    assert not compat.default_to_foreach([torch.ones(1)], differentiable=False)
    assert not compat.default_to_foreach([torch.ones(1)], differentiable=True)
