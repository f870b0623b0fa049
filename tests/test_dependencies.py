"""What is said of packages that are missing, broken or shadowed. A process of its own imports what each test makes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adarem.dependencies import import_problem, install_command, requirements

REPORT = "import adarem.dependencies as d\ntry:\n    {}\nexcept Exception as e:\n    print(d.import_problem(e))"


def problem(statement: str, folder: Path) -> str:
    """What ``import_problem`` says of the error of a statement, run in ``folder``, where Python looks first."""
    command = [sys.executable, "-c", REPORT.format(statement)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def hidden(*modules: str) -> str:
    """A statement that makes modules look as if they were not installed, for the rest of its process."""
    return (
        "import importlib.machinery as m, importlib.metadata as im; real = m.PathFinder.find_spec; "
        f"m.PathFinder.find_spec = lambda n, *a: None if n in {modules} else real(n, *a); "
    )


@pytest.mark.parametrize(
    ("statement", "module", "extra"),
    [
        ("import yaml", "yaml", "harness"),
        ("from hydra import compose", "hydra", "harness"),
        ("import omegaconf", "omegaconf", "harness"),  # hydra's own dependency
        ("import numba.typed", "numba", "ffcv"),
        ("import cv2", "cv2", "ffcv"),  # ffcv's own
        ("import wandb_workspaces", "wandb_workspaces", "workspaces"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, statement: str, module: str, extra: str) -> None:
    said = problem(hidden(module) + statement, tmp_path)
    assert said == f"{module}: not installed; run `pip install 'adarem[{extra}]'`"


def test_a_package_that_raises_when_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('built for another\\nmachine')")
    said = problem("import broken", tmp_path)
    assert said.startswith("broken: cannot be imported (RuntimeError: built for another); run `pip install --force-rei")


BROKEN = {"raises": "raise RuntimeError('x')", "lacks names": "x = 1", "no Python": "this is no Python"}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("statement", ["import numpy.linalg", "from numpy import array", "import numpy; numpy.array"])
def test_a_file_in_place_of_a_package(tmp_path: Path, how: str, statement: str) -> None:
    (tmp_path / "numpy.py").write_text(BROKEN[how])
    said = problem(statement, tmp_path)
    where = tmp_path / "numpy.py"
    assert said == f"numpy: {where} is imported in place of the real one; rename it, or start in another folder"


SHADOWS = [("status", "yaml", "yaml/__init__.py"), ("doctor", "argparse", "argparse.py")]


@pytest.mark.parametrize(("verb", "module", "file"), SHADOWS)
def test_what_pythonpath_puts_before_the_real_one(tmp_path: Path, verb: str, module: str, file: str) -> None:
    theirs = tmp_path / "theirs"
    (theirs / file).parent.mkdir(parents=True)
    (theirs / file).write_text("x = 1")
    command, environment = [sys.executable, "-P", "-m", "adarem", verb], {**os.environ, "PYTHONPATH": str(theirs)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    said = (
        f"{module}: {theirs / file} is imported in place of the real one; take {theirs} out of PYTHONPATH, or rename it"
    )
    assert done.stderr.endswith(f"{said}\n") and done.returncode == 2 and done.stderr.count("\n") == 1


def test_a_file_in_place_of_pythons_own(tmp_path: Path) -> None:
    (tmp_path / "statistics.py").write_text("")
    assert problem("from statistics import median", tmp_path).startswith(f"statistics: {tmp_path / 'statistics.py'} is")


def test_too_little_memory_is_no_broken_package(tmp_path: Path) -> None:
    """`ulimit -v`: a library cannot be mapped, and to install it anew would not help."""
    part = "raise ImportError('libtorch_cpu.so: failed to map segment from shared object', name='_C')"
    (tmp_path / "big.py").write_text(part)
    said = problem("import big", tmp_path)
    assert said.startswith("big: cannot be imported (libtorch_cpu.so: failed to map segment from shared object); raise")
    assert import_problem(MemoryError()).startswith("memory: there is no more (MemoryError); raise the limit (`ulimit")
    assert import_problem(RuntimeError("DefaultCPUAllocator: can't allocate memory: 4 bytes")).startswith("memory: ")


def test_errors_that_no_import_raised_are_not_explained_away(tmp_path: Path) -> None:
    assert import_problem(ValueError("x")) is None
    for statement in ("1 / 0", "import sys; sys.nothing", "import adarem.nothing", "from adarem.run import nothing"):
        assert problem(statement, tmp_path) == "None"


def test_requirements_are_those_of_the_metadata() -> None:
    found = {r.package.lower().replace("_", "-"): r for r in requirements()}
    assert found["torch"].extra is None and found["torch"].versions == ">=2.6"
    assert (found["scikit-learn"].module, found["scikit-learn"].extra) == ("sklearn", "harness")
    assert found["ffcv"].installed() == "1.0.2" and "pytest" not in found
    assert install_command(None) == "pip install torch"
