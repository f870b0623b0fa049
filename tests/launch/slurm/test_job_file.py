"""The file with what a sweep's jobs need, as a shell reads it."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adarem.launch.slurm.commands import job_file
from adarem.launch.slurm.job_file import write_job_file
from adarem.plan.plan import Plan
from tests.support import ROOT
from tests.support.launching import NASTY, executable


def test_a_shell_gets_the_same_words_back(composed: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = "module load 'cuda'\nexport A=\"$B\" `touch hacked` $(touch hacked)"
    cluster = replace(composed.runs[0].config.cluster, setup=setup, threads_per_rank=0)
    given = {"PYTHONPATH": f"mine{os.pathsep}/abs", "ADAREM_CONFIGS": "my configs", "OMP_NUM_THREADS": "7"}
    given |= {"SLURM_CONF": f"/etc/{NASTY}/slurm.conf", "WANDB_API_KEY": "secret", "SLURM_JOB_ID": "7", "RANK": "0"}
    monkeypatch.chdir(tmp_path)
    path = job_file(tmp_path / NASTY, "token")
    write_job_file(path, cluster, given, {"ADAREM_SWEEP": NASTY})
    assert path.stat().st_mode & 0o777 == 0o600 and "secret" not in path.read_text()
    read = ["bash", "-uc", 'source "$0"; env -0', str(path)]
    printed = subprocess.run(read, env={}, capture_output=True, check=True).stdout.decode()
    found = dict(pair.split("=", 1) for pair in printed.split("\0") if pair)
    assert found["ADAREM_PYTHON"] == sys.executable and found["ADAREM_SETUP"] == setup
    assert found["ADAREM_SWEEP"] == NASTY and found["OMP_NUM_THREADS"] == "7"
    assert (
        found["PYTHONPATH"] == f"{tmp_path}/mine{os.pathsep}/abs"
        and found["ADAREM_CONFIGS"] == f"{tmp_path}/my configs"
    )
    assert found["SLURM_CONF"] == given["SLURM_CONF"] and not {"RANK", "SLURM_JOB_ID"} & found.keys()
    assert not (tmp_path / "hacked").exists()
    here = subprocess.run(read, env={"SLURM_CONF": "/of/this/node"}, capture_output=True, check=True).stdout.decode()
    assert "SLURM_CONF=/of/this/node" in here.split("\0")


@pytest.mark.parametrize("script", ["run.sbatch", "prepare.sbatch", "report.sbatch", "probe.sbatch"])
def test_a_script_takes_nothing_from_a_file_of_somebody_else(script: str, tmp_path: Path) -> None:
    """Whoever can write into a shared folder could otherwise have their commands run by those who train there."""
    mine = tmp_path / "mine.job"
    mine.write_text(f"touch {tmp_path}/read\n")
    link = tmp_path / "link.job"
    link.symlink_to(mine)
    theirs = tmp_path / "theirs.job"
    theirs.write_text(mine.read_text())
    files = [link, tmp_path / "none.job"]
    if os.geteuid() == 0:
        shutil.chown(theirs, 65534)
        files.append(theirs)
    for file in files:
        command = ["bash", str(ROOT / "slurm" / script), f"--job-file={file}", "a", "b", "3"]
        env = {"PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": "/"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and done.stderr.startswith(f"{file}: no file of yours; ")
    assert not (tmp_path / "read").exists()


@pytest.mark.parametrize("script", ["prepare.sbatch", "report.sbatch", "probe.sbatch"])
def test_a_job_without_its_submitters_environment(script: str, composed: Plan, tmp_path: Path) -> None:
    """As under ``--export=NONE``; that of a run is in test_scripts.py."""
    setup = f"echo setup >>'{tmp_path}/calls'; hash -p '{tmp_path}/python' python3"
    python = executable(tmp_path / "python", f"#!/bin/sh\necho \"$ADAREM_SWEEP:$@\" >>'{tmp_path}/calls'\n")
    file = tmp_path / "token.job"
    write_job_file(file, replace(composed.runs[0].config.cluster, setup=setup), {}, {"ADAREM_SWEEP": "S"})
    file.write_text(file.read_text().replace(sys.executable, str(python)))
    executable(tmp_path / "scontrol", "#!/bin/sh\necho n1\n")
    env = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n1",
        "ADAREM_SETUP": "exit 9",
    }
    command = ["bash", str(ROOT / "slurm" / script), f"--job-file={file}", "a", "b", "3"]
    assert subprocess.run(command, env=env, timeout=60).returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "setup" and any(call.startswith("S:-m adarem") and "a b 3" in call for call in calls[1:])
