"""Who may import whom and which library belongs where, by the syntax tree; a verb that needs no torch loads none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

SRC = ROOT / "src" / "adarem"

# Package, or module beside the packages: what it may import of adarem beside itself.
MAY_IMPORT = {
    "caches": set(),
    "native": {"caches"},
    "optim": {"native"},
    "run": set(),
    "resources": {"run"},
    "dependencies": set(),
    "data": {"run", "native", "caches"},
    "plan": {"run", "resources", "data"},
    "launch": {"run", "resources", "dependencies", "data", "plan"},
    "probe": {"run", "data", "plan", "launch", "train"},
    "doctor": {"run", "native", "dependencies", "data", "launch"},
    "train": {"run", "native", "caches", "dependencies", "data", "optim", "tracking"},
    "report": {"run", "resources"},
    "tracking": {"run", "report"},
    "cli": {"run", "dependencies", "data", "plan", "launch", "probe", "doctor", "train", "report", "tracking"},
    "__main__": {"cli", "dependencies"},
    "__init__": {"optim"},
}
# Library: the packages, folders or modules that may import it, at the top or inside a function.
LIBRARY = {
    "hydra": ["plan"],
    "omegaconf": ["plan"],
    "ffcv": ["data/ffcv"],
    "numba": ["data/ffcv"],
    "wandb": ["tracking"],
    "wandb_workspaces": ["tracking"],
    "llvmlite": ["data/ffcv"],
    "cv2": ["data/ffcv"],
    "PIL": ["data", "doctor/isolated_checks.py"],
    "torch": [
        "optim",
        "train",
        "data/loaders.py",
        "data/ffcv",
        "data/images/folder_reader.py",
        "doctor/isolated_checks.py",
        "probe/rank.py",
    ],
    "torchvision": [
        "train",
        "data/images/devkit.py",
        "data/images/folder_reader.py",
        "data/images/torchvision_sets.py",
        "doctor/isolated_checks.py",
    ],
    "timm": ["train", "optim"],
    "safetensors": ["train"],
    "pytorch_optimizer": ["train"],
    "sklearn": ["data/images/digits.py"],
    "pandas": [],
    "matplotlib": ["report/figures"],
    # plan draws the trials of a search with it, and imports it for that alone.
    "scipy": ["report/stats.py", "data/images/devkit.py", "plan/draw.py"],
    "statsmodels": ["report/stats.py"],
    "jinja2": ["report/page"],
    "rich": ["train", "launch", "data", "report"],
}
# Module paths that jobs which were queued before a move still call: one line each, which the changelog dates.
SHIMS = {"slurm", "torchrun", "mirror", "models", "probes"}


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
def test_imports_follow_the_table(path: Path) -> None:
    place = str(path.relative_to(SRC))
    package = place.partition("/")[0].removesuffix(".py")
    if package in SHIMS:
        return
    for name in imports_of(path):
        words = name.split(".")
        if words[0] == "adarem" and len(words) > 1 and words[1] != package:
            allowed = MAY_IMPORT[package]
            assert words[1] in allowed, f"{place} imports {name}; {package} may import {sorted(allowed)}"
        elif words[0] in LIBRARY:
            allowed = LIBRARY[words[0]]
            inside = any(f"{place}/".startswith(f"{p}/") for p in allowed)
            assert inside, f"{place} imports {name}, which is for {allowed}"


def modules_after(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {m.split(".")[0] for m in done.stdout.split()}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import adarem, adarem.__main__, adarem.run.directory, adarem.run.sweep",
            {"torch", "hydra", "pandas", "wandb", "numpy", "rich"},
        ),
        ("from adarem import AdaRem, AdaRemS", {"hydra", "wandb", "ffcv", "pandas", "timm", "torchvision", "yaml"}),
        ("import adarem.plan.plan, adarem.launch.launch", {"torch", "pandas", "wandb"}),
        ("import adarem.launch.status", {"torch", "hydra", "pandas"}),
        ("import adarem.doctor, adarem.plan.init", {"yaml", "numpy", "torch", "hydra", "packaging"}),
        ("import adarem.report.make, adarem.report.compare", {"torch", "hydra", "wandb", "matplotlib", "jinja2"}),
        ("import adarem.train.train", {"hydra", "pandas", "wandb", "ffcv", "timm"}),
    ],
)
def test_nobody_pays_for_anothers_libraries(statement: str, absent: set[str]) -> None:
    assert not modules_after(statement) & absent


def test_modules_can_be_read_in_one_sitting() -> None:
    long = {str(p.relative_to(SRC)): n for p in SRC.rglob("*.py") if (n := len(p.read_text().splitlines())) > 500}
    assert not long


def test_text_has_its_encoding() -> None:
    """Else it is the locale's, and a file that one machine wrote cannot be read on another."""
    folders = ("src", "scripts", "benchmarks", "examples")
    for path in (p for folder in folders for p in (ROOT / folder).rglob("*.py")):
        for call in (n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)):
            given = {k.arg for k in call.keywords}
            opens, name = _opens_a_file(call)
            words = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            as_text = name in ("read_text", "write_text") or "text" in given and "capture_output" in given
            as_text |= opens and not any("b" in word and len(word) < 5 for word in words[-1:])
            assert not as_text or "encoding" in given, f"{path}:{call.lineno}: give encoding='utf-8'"


def _opens_a_file(call: ast.Call) -> tuple[bool, str]:
    """Whether it may be opened as text, and the called name."""
    if isinstance(call.func, ast.Name):
        return call.func.id == "open", call.func.id
    if isinstance(call.func, ast.Attribute):
        of = ast.unparse(call.func.value)
        return (of, call.func.attr) in {("os", "fdopen"), ("io", "open")}, call.func.attr
    return False, ""


def test_every_entry_point_prepares_its_streams() -> None:
    """The compiler's child writes one line of ASCII, and the command line does so in ``main``."""
    for path in sorted(SRC.rglob("*.py")):
        text = path.read_text("utf-8")
        if 'if __name__ == "__main__":' in text and path.stem not in ("native", "__main__"):
            assert "    streams.prepare()\n" in text, path
