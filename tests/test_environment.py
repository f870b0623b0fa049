"""The files that name dependencies agree with each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-")


REQUIREMENTS = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]


def test_conda_environment_has_every_requirement_with_the_same_bounds() -> None:
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = [p for p in packages if isinstance(p, str)]
    pip = next(p["pip"] for p in packages if isinstance(p, dict))
    offered = {name_of(p): p for p in [*conda, *pip] if not p.startswith("-e")}
    offered["torch"] = offered["pytorch"].replace("pytorch", "torch")
    for requirement in REQUIREMENTS:
        assert offered[name_of(requirement)].lower().replace("_", "-") == requirement.lower().replace("_", "-")


def test_conda_environment_is_one_that_conda_reads() -> None:
    """Nothing more is known of it where no channel is reachable."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment.keys() == {"name", "channels", "dependencies"}
    conda = [p for p in environment["dependencies"] if isinstance(p, str)]
    one = r"(?:>=|<=|==|=|<|>)[0-9][0-9.]*"
    assert [p for p in conda if not re.fullmatch(rf"[a-z0-9][a-z0-9._-]*(?:{one}(?:,{one})*)?", p)] == []
    names = [name_of(p) for p in conda]
    assert len(names) == len(set(names))
    (python,) = (p.removeprefix("python=") for p in conda if name_of(p) == "python")
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]


def test_every_requirement_is_pinned_and_installed_as_pinned() -> None:
    import importlib.metadata

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    pins = {name_of(k): v for k, v in pins.items()}
    for requirement in REQUIREMENTS:
        assert name_of(requirement) in pins, requirement
        assert (
            importlib.metadata.version(name_of(requirement)).split("+")[0] == pins[name_of(requirement)].split("+")[0]
        )


PYTHONS = [c.split()[-1] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
SOURCE_ONLY = ("antlr4-python3-runtime", "assertpy", "fastargs", "ffcv")  # built where they are installed


@pytest.mark.installs
@pytest.mark.parametrize("version", [PYTHONS[0], PYTHONS[-1]])
def test_the_pins_have_wheels_for_the_oldest_and_the_newest_python(version: str, tmp_path: Path) -> None:
    """For its first release, as a distribution may have an early one. pip asks its index; nothing is installed."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = tmp_path / "pins.txt"
    pins.write_text("\n".join(line for line in lines if name_of(line) not in SOURCE_ONLY))
    asked = ["--dry-run", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", version]
    command = [sys.executable, "-m", "pip", "install", *asked, "--target", str(tmp_path / "nowhere"), "-r", str(pins)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]


def test_no_registry_addresses() -> None:
    for file in ("constraints.txt", "environment.yml", "pyproject.toml"):
        assert "://" not in (ROOT / file).read_text()


def test_the_optimizers_need_torch_alone() -> None:
    assert [name_of(r) for r in PROJECT["dependencies"]] == ["torch"]


@pytest.mark.parametrize("target", ["help", "reproduce-table1", "reproduce-table2", "test"])
def test_make_knows_its_targets(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_make_help_lists_every_target() -> None:
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z0-9-]+):(?!=)", (ROOT / "Makefile").read_text(), re.M)
    assert targets and all(re.search(rf"make {t}\s+\S+", text) for t in targets)


def test_shell_scripts_parse() -> None:
    scripts = [*ROOT.glob("scripts/*.sh"), *ROOT.glob("slurm/*.sbatch"), ROOT / ".ci" / "run"]
    assert len(scripts) >= 5
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_commit_hooks_run_what_lint_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"  # nothing is fetched
    hooks = [hook["entry"].removeprefix(".venv/bin/").split(" --")[0] for hook in repository["hooks"]]
    (lint,) = re.findall(r"^lint:.*\n\t@(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    linted = [re.sub(r"\$\(BIN\)/| --check| \.", "", command) for command in lint.split(" && ")]
    assert hooks == linted
