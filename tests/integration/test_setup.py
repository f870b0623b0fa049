"""Set-up by make: the versions of Python, an environment of the user's own, and set-ups from nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.blocks import blocks

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OLDEST = PROJECT["requires-python"].removeprefix(">=")
TESTED = [c.split(" :: ")[-1] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
PARTS = ("Makefile", "scripts/reproduce.sh", "scripts/setup.sh", "pyproject.toml", "constraints.txt")

Make = Callable[..., subprocess.CompletedProcess[str]]


def interpreters() -> Iterator[tuple[str, str]]:
    """Version and path of each Python 3 of this machine, of pyenv's folder and of PATH, one a minor version."""
    folders = [*Path("~/.pyenv/versions").expanduser().glob("3.*/bin"), *map(Path, os.environ["PATH"].split(":"))]
    found: dict[str, str] = {}
    for folder in folders:
        for python in sorted(folder.glob("python3.[0-9]*")):
            if re.fullmatch(r"python3\.\d+", python.name) and "shims" not in python.parts:
                found.setdefault(python.name.removeprefix("python"), str(python))
    yield from sorted(found.items(), key=lambda item: int(item[0].split(".")[1]))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make` in a copy of the checkout that has no .venv."""
    for part in PARTS:
        (tmp_path / "checkout" / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, tmp_path / "checkout" / part)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "PYTHON", "VENV", "IMAGENET", "SEEDS")}
        return subprocess.run(
            ["make", *arguments], cwd=tmp_path / "checkout", env=env, capture_output=True, text=True, timeout=60
        )

    return run


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """An environment of the user's, at a path with a space: this Python, and an `adarem` that writes down its words."""
    bin_ = tmp_path / "my env" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (bin_ / "adarem").write_text('#!/bin/sh\nprintf "%s " "$@" >words\n')
    for command in bin_.iterdir():
        command.chmod(0o755)
    return bin_.parent


def fake_python(folder: Path, version: str) -> Path:
    """An interpreter that says it is of another version."""
    python = folder / "python"
    numbers = ", ".join(version.split("."))
    python.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && {{ echo "Python {version}"; exit; }}\n'
        f'shift; exec "{sys.executable}" -c "import sys; sys.version_info = ({numbers}); $1"\n'
    )
    python.chmod(0o755)
    return python


def test_the_oldest_python_is_said_once() -> None:
    """In pyproject.toml; what tests run on are its classifiers, which the README and the workflow name."""
    assert PROJECT["requires-python"] == f">={TESTED[0]}"
    assert f"Python {', '.join(TESTED[:-1])} or {TESTED[-1]}" in (ROOT / "README.md").read_text()
    for file in ("scripts/setup.sh", ".ci/run", "Makefile", "src/adarem/doctor/software.py"):
        assert not re.search(r"3\.1[01]|3, 1[01]", (ROOT / file).read_text()), file


def test_an_old_python_is_refused_in_one_line(make: Make, tmp_path: Path) -> None:
    minor = int(OLDEST.split(".")[1])
    python = fake_python(tmp_path, f"3.{minor - 1}.13")
    done = make("setup", f"PYTHON={python}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        f"setup: {python}: Python 3.{minor - 1}.13 is too old; "
        f"install Python {OLDEST} or newer, or make PYTHON=/path/to/python3"
    )
    assert not (tmp_path / "checkout" / ".venv").exists()


def test_a_python_that_is_not_there_is_one_line(make: Make) -> None:
    done = make("setup", "PYTHON=/nowhere/python3")
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"setup: /nowhere/python3: not found; install Python {OLDEST} or newer, or make PYTHON="
    )


def test_an_environment_of_ones_own_is_used_as_it_is(make: Make, own: Path, tmp_path: Path) -> None:
    done = make("reproduce-table2", f"VENV={own}", "SEEDS=1 2")
    assert done.returncode == 0, done.stderr
    words = "launch grid=table2 data=digits cluster=rehearsal scale.micro_batch_size=32 seeds=[1,2] "
    assert (tmp_path / "checkout" / "words").read_text() == words
    assert make("status", f"VENV={own}").returncode == 0
    assert (tmp_path / "checkout" / "words").read_text() == "status "
    assert not (tmp_path / "checkout" / ".venv").exists()
    assert sorted(p.name for p in own.rglob("*")) == ["adarem", "bin", "python"]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("", "setup: VENV: empty; activate an environment first, or leave VENV out"),
        ("/no where", "setup: VENV=/no where: no bin/python there; make setup VENV=/no\\ where makes it"),
    ],
)
def test_an_environment_that_is_not_there_is_one_line(make: Make, given: str, line: str) -> None:
    done = make("doctor", f"VENV={given}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == line


def test_an_environment_without_adarem_is_one_line(make: Make, own: Path) -> None:
    python = own / "bin" / "python"
    python.write_text(python.read_text().replace('"$@"', '-S "$@"'))  # without its packages
    done = make("doctor", f"VENV={own}")
    assert done.returncode == 2
    quoted = str(own).replace(" ", "\\ ")
    assert done.stderr.splitlines()[0] == (
        f"setup: VENV={own}: adarem is not installed there; "
        f"make setup VENV={quoted} installs the pinned packages into it"
    )


def test_setup_of_an_environment_of_ones_own_installs_into_it(make: Make, own: Path, tmp_path: Path) -> None:
    python = own / "bin" / "python"
    python.write_text(python.read_text().replace("exec", '[ "$1" != -m ] || { echo "$@" >>pip; exit; }\nexec'))
    done = make("setup", f"VENV={own}")
    assert done.returncode == 0, done.stderr
    (line,) = (tmp_path / "checkout" / "pip").read_text().splitlines()
    assert line.startswith("-m pip install ")
    assert "-c constraints.txt -e .[harness,ffcv,workspaces,dev,docs,examples]" in line
    assert not (tmp_path / "checkout" / ".venv").exists()


def test_the_block_of_the_page_on_installing(make: Make, own: Path, tmp_path: Path) -> None:
    """As it is printed, with an environment active whose pip and adarem only write down what they are asked."""
    (block,) = (b for b in blocks("docs/install.md") if b.marked == "run by" and "VIRTUAL_ENV" in b.code)
    python = own / "bin" / "python"
    python.write_text(python.read_text().replace("exec", '[ "$1" != -m ] || { echo "$2" >>pip; exit; }\nexec'))
    environment = {"PATH": os.environ["PATH"], "VIRTUAL_ENV": str(own)}
    place = tmp_path / "checkout"
    subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], cwd=place, env=environment, check=True)
    assert (place / "pip").read_text() == "pip\n"
    assert (place / "words").read_text() == "doctor "
    assert not (place / ".venv").exists()


@pytest.mark.installs
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("version", "python"), [pytest.param(*found, id=found[0]) for found in interpreters()])
def test_each_python_of_this_machine(version: str, python: str, tmp_path: Path) -> None:
    """The pinned packages into a new environment, doctor, and a small run on the digits; or refused in one line."""
    environment, place = tmp_path / "environment", tmp_path / "checkout"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / name)

    def run(*command: str, expected: int = 0) -> str:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    try:
        if int(version.split(".")[1]) < int(OLDEST.split(".")[1]):
            refused = run("make", "setup", f"PYTHON={python}", f"VENV={environment}", expected=2)
            assert refused.startswith(f"setup: {python}: Python {version}") and "too old" in refused.splitlines()[0]
            return
        run("make", "setup", f"PYTHON={python}", f"VENV={environment}")
        said = run("make", "doctor", f"VENV={environment}")
        assert "nothing is missing" in said
        words = "grid=table2 data=digits scale=smoke optimizer=adarem cluster.ranks_per_node=1 wandb.mode=disabled"
        run(str(environment / "bin" / "adarem"), "launch", *words.split())
        result = json.loads((place / "runs/table2-digits-smoke/resnet18-adarem-s0/result.json").read_text())
        assert result["status"] == "done" and result["top1"] > 50
        print(f"Python {version}: installed, doctor, top-1 {result['top1']} %", said, sep="\n")
    finally:
        shutil.rmtree(environment, ignore_errors=True)  # 6 GB each
