"""Nothing read from disk is executed; nothing a user names is executed or split by a shell."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adarem.run.sweep import runs_in
from tests.support import ROOT

SOURCES = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("scripts/*.py")])
NEVER_IMPORTED = {"pickle", "cPickle", "dill", "shelve", "marshal", "cloudpickle", "joblib"}
NEVER_CALLED = {"eval", "exec", "os.system", "os.popen", "tempfile.mktemp", "yaml.unsafe_load", "yaml.full_load",
                "torch.jit.load", "torch.hub.load", "np.fromregex"}  # fmt: skip


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{name_of(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def dangers(source: str) -> list[str]:
    """Calls and imports in a module that would execute what they are given."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or a.name for a in node.names]
            found += [n for n in names if n.split(".")[0] in NEVER_IMPORTED]
        if not isinstance(node, ast.Call):
            continue
        name, given = name_of(node.func), {k.arg: k.value for k in node.keywords}
        literal = {k: v.value for k, v in given.items() if isinstance(v, ast.Constant)}
        if (
            name in NEVER_CALLED
            or name == "torch.load"
            and literal.get("weights_only") is not True
            or name == "np.load"
            and literal.get("allow_pickle") is not False
            or name == "yaml.load"
            and name_of(given["Loader"]) not in ("SAFE_YAML", "yaml.SafeLoader")
            or literal.get("shell") is True
        ):
            found.append(f"{name} in line {node.lineno}")
    return found  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_no_module_executes_what_it_reads(path: Path) -> None:
    assert dangers(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "yaml.load(t, Loader=yaml.Loader)",
        "yaml.unsafe_load(t)",
        "subprocess.run(c, shell=True)",
        "os.system(c)",
        "eval(c)",
        "tempfile.mktemp()",
    ],
)
def test_the_search_finds(line: str) -> None:
    assert len(dangers(line)) == 1


@pytest.mark.slow
def test_hostile_paths_from_plan_to_report(tmp_path: Path, digits_root: Path) -> None:
    """plan, prepare (found done), bash for cluster.setup, torchrun, training, report: all in a place of this name."""
    place = tmp_path / "a b 'c' \"d\" $(touch hacked) `touch hacked` ; touch hacked #\n%j * ~ é"
    place.mkdir()
    shutil.copytree(digits_root / "ffcv", place / "digits" / "ffcv")
    quoted = str(place).replace('"', '\\"')
    overrides = [
        "grid=table2", "data=digits", f'data.root="{quoted}/digits"', f'runs_dir="{quoted}/runs"', "scale.epochs=1",
        f'results_dir="{quoted}/results"', "optimizer=adarem", "model=shufflenet_v2_0.5", "scale=smoke",
        "scale.global_batch_size=288", "cluster.ranks_per_node=1", "wandb.mode=disabled",
        "cluster.setup='export OF_THE_SITE=1'",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "adarem", "launch", *overrides],
        cwd=tmp_path,
        env=os.environ | {"ADAREM_CONFIGS": str(ROOT / "configs")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (run,) = runs_in(place / "runs" / "table2-digits-smoke")
    assert run.status() == "done" and run.config().data.root == str(place / "digits")
    assert list((place / "results").glob("*/report.html"))
    assert not list(tmp_path.rglob("hacked")) and not (ROOT / "hacked").exists()
    assert {p.name for p in tmp_path.iterdir()} == {place.name}
