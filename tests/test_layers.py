"""Imports run downward only, found on the syntax tree; and a verb that needs no torch loads none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "adarem"

# Every module's layer; a module may import from its own layer and the ones that it lists.
LAYERS: dict[str, tuple[str, ...]] = {
    "contract": ("errors", "schema", "typed", "config", "files", "locks", "rundir", "campaign", "exitcodes", "names"),
    "leaf": (
        "optim",
        "schedule",
        "rendezvous",
        "distributed",
        "watchdog",
        "meters",
        "oscillation",
        "lstm",
        "averaging",
    ),
    "data": ("data",),
    "training": (
        "models",
        "checkpoint",
        "tasks",
        "language_task",
        "trainer",
        "train",
        "attempt",
        "mirror",
        "dashboard",
        "workspace",
        "display",
        "provenance",
    ),
    "control": ("compose", "plan", "winners", "launch", "slurm", "child", "doctor"),
    "programs": ("torchrun", "probes"),  # processes of their own, started by the control plane
    "results": ("report", "status"),
    "entry": ("__main__", "__init__"),
}
MAY_IMPORT = {
    "contract": {"contract"},
    "leaf": {"leaf", "contract"},
    "data": {"data", "contract"},
    "training": {"training", "data", "leaf", "contract"},
    "control": {"control", "contract"},
    "programs": {"contract", "data"},
    "results": {"results", "contract"},
    "entry": {"entry", "contract", "control", "results", "training", "data", "leaf"},
}
# Third-party packages that a layer must not import, at the top or inside a function.
FORBIDDEN = {
    "contract": {"torch", "hydra", "omegaconf", "pandas", "wandb", "ffcv", "matplotlib", "timm", "rich"},
    "leaf": {"hydra", "omegaconf", "pandas", "wandb", "ffcv", "matplotlib"},
    "data": {"hydra", "omegaconf", "pandas", "wandb"},
    "training": {"hydra", "omegaconf", "pandas", "matplotlib"},
    "control": {"torch", "pandas", "matplotlib", "wandb"},
    "programs": {"hydra", "omegaconf", "pandas", "wandb", "matplotlib"},
    "results": {"torch", "hydra", "omegaconf", "wandb", "ffcv"},
    "entry": {"torch", "hydra", "omegaconf", "pandas", "wandb", "ffcv", "matplotlib"},
}
# The launcher calls the report and the preparation as their users do, at the end and the beginning of its own work.
EXCEPTIONS = {("status", "slurm"), ("launch", "report"), ("launch", "data"), ("slurm", "data"), ("doctor", "data")}
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules}


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: str(p.relative_to(SRC)))
def test_imports_run_downward(path: Path) -> None:
    module = path.relative_to(SRC).parts[0].removesuffix(".py")
    assert module in LAYER_OF, f"{module}: give it a layer in this test"
    layer = LAYER_OF[module]
    for name in imports_of(path):
        words = name.split(".")
        if words[0] != "adarem":
            assert words[0] not in FORBIDDEN[layer], f"{path.name} ({layer}) imports {name}"
        elif len(words) > 1 and words[1] in LAYER_OF:
            target = words[1]
            allowed = LAYER_OF[target] in MAY_IMPORT[layer] or (module, target) in EXCEPTIONS
            assert allowed, f"{module} ({layer}) imports {target} ({LAYER_OF[target]})"


def modules_after(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {m.split(".")[0] for m in done.stdout.split()}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import adarem, adarem.__main__, adarem.rundir, adarem.campaign",
            {"torch", "hydra", "pandas", "wandb", "numpy", "rich"},
        ),
        ("from adarem import AdaRem, AdaRemS", {"hydra", "wandb", "ffcv", "pandas", "timm", "torchvision", "yaml"}),
        ("import adarem.plan, adarem.launch", {"torch", "pandas", "wandb"}),
        ("import adarem.status", {"torch", "hydra", "pandas"}),
        ("import adarem.report.make", {"torch", "hydra", "wandb"}),
        ("import adarem.train", {"hydra", "pandas", "wandb", "ffcv", "timm"}),
    ],
)
def test_nobody_pays_for_anothers_libraries(statement: str, absent: set[str]) -> None:
    assert not modules_after(statement) & absent


def test_modules_can_be_read_in_one_sitting() -> None:
    long = {str(p.relative_to(SRC)): n for p in SRC.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long
