"""The workflow of GitHub: valid by its schema, in step with make and pyproject.toml, and without a secret."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support import ROOT

FILE = ROOT / ".github" / "workflows" / "ci.yml"
JOBS = yaml.safe_load(FILE.read_text())["jobs"]
COMMANDS = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]


def is_valid(file: Path) -> bool:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(file)]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_it_is_valid_by_githubs_schema(tmp_path: Path) -> None:
    assert is_valid(FILE)
    broken = tmp_path / "broken.yml"
    broken.write_text(FILE.read_text().replace("runs-on:", "runs_on:"))
    assert not is_valid(broken)


def test_it_needs_no_secret_and_may_only_read() -> None:
    assert "secrets" not in FILE.read_text()
    assert yaml.safe_load(FILE.read_text())["permissions"] == {"contents": "read"}
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", use) for job in JOBS.values() for use in uses(job))


def uses(job: dict) -> list[str]:
    return [step["uses"] for step in job["steps"] if "uses" in step]


def test_it_reads_the_pythons_from_pyproject(tmp_path: Path) -> None:
    step = next(step for step in JOBS["pythons"]["steps"] if step.get("id") == "read")
    output = tmp_path / "output"
    env = {"PATH": "/usr/bin:/bin", "GITHUB_OUTPUT": str(output)}
    subprocess.run(["bash", "-e", "-c", step["run"]], cwd=ROOT, env=env, check=True, capture_output=True)
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    versions = [c.split(" :: ")[-1] for c in classifiers if re.search(r":: 3\.\d+$", c)]
    assert json.loads(output.read_text().removeprefix("all=")) == versions
    newest = {job["container"] for name, job in JOBS.items() if name not in ("pythons", "test")}
    assert newest == {f"python:{versions[-1]}-bookworm"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_knows_what_it_calls(command: str) -> None:
    subprocess.run([*command.split(), "-n"], cwd=ROOT, check=True, capture_output=True)


def test_it_does_what_ci_does() -> None:
    ci = re.findall(r"^make .*$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert set(ci) <= set(COMMANDS)
