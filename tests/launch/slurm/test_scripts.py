"""The batch scripts in slurm/, with stand-ins for Slurm's commands."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from adarem.launch.slurm.commands import refusal_file
from adarem.launch.slurm.job_file import write_job_file
from adarem.plan.plan import Plan
from adarem.run.directory import RunDir
from tests.support import ROOT
from tests.support.launching import executable


def test_header_of_run_sbatch_equals_the_config() -> None:
    header = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)", (ROOT / "slurm" / "run.sbatch").read_text(), re.M))
    config = yaml.safe_load((ROOT / "configs" / "cluster" / "slurm.yaml").read_text())
    assert header["nodes"] == str(config["nodes"])
    assert header["ntasks-per-node"] == header["gpus-per-node"] == str(config["ranks_per_node"])
    assert header["cpus-per-task"] == str(config["cpus_per_rank"])
    assert header["time"] == config["time"]


RUN_SBATCH = ROOT / "slurm" / "run.sbatch"


def batch(tmp_path: Path, run: RunDir, setup: str, srun: str, script: Path = RUN_SBATCH) -> tuple[int, list[list[str]]]:
    """Runs a job's script; returns its exit code and the first two words of each of Slurm's commands, in order."""
    bin = tmp_path / "bin"
    bin.mkdir()
    log = f'echo "$(basename "$0") $*" >>{shlex.quote(str(tmp_path / "calls"))}'
    executable(bin / "scontrol", f"#!/bin/bash\n{log}\n[[ $1 != show ]] || echo n1\n")
    executable(bin / "srun", f"#!/bin/bash\n{srun}\n{log}; exit 75\n")
    executable(bin / "squeue", "#!/bin/bash\necho 7 RUNNING None\n")
    env = os.environ | {"PATH": f"{bin}:{os.environ['PATH']}", "ADAREM_PYTHON": f"{sys.prefix}/bin/python"}
    env |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_SUBMIT_DIR": "/", "SLURM_NTASKS": "1"}
    command = ["bash", str(script), str(run.path)]
    done = subprocess.run(command, env=env | {"ADAREM_SETUP": setup}, capture_output=True, text=True, timeout=120)
    return done.returncode, [c.split()[:2] for c in (tmp_path / "calls").read_text().splitlines()]


def test_a_warning_before_the_ranks_start(run: RunDir, tmp_path: Path) -> None:
    """While the site's setup runs: nothing is started, and the job starts again."""
    code, calls = batch(tmp_path, run, setup="kill -USR1 $$", srun=":")
    assert code == 75 and calls == [["scontrol", "show"], ["scontrol", "requeue"]]


def test_a_warning_right_after_the_ranks_start_reaches_them(run: RunDir, tmp_path: Path) -> None:
    """srun does not handle signals at once: one forwarded too early would kill it."""
    up = shlex.quote(str(tmp_path / "up"))
    # In place of `sleep 1`: the warning comes now, and srun handles signals once this returns.
    setup = f"sleep() {{ kill -USR1 $$; until [[ -e {up} ]]; do command sleep 0.05; done; }}"
    srun = (
        f"sleep 0.5; trap 'warned=1' USR1; touch {up}\n"
        "for _ in {1..600}; do [[ -z ${warned-} ]] || { set -- warned; break; }; sleep 0.1; done"
    )
    code, calls = batch(tmp_path, run, setup, srun)
    assert code == 75 and calls == [["scontrol", "show"], ["srun", "warned"], ["scontrol", "requeue"]]


def test_the_setup_of_a_site_may_read_variables_that_are_not_set(run: RunDir, tmp_path: Path) -> None:
    code, calls = batch(tmp_path, run, setup='[ -z "$NOT_SET_ANYWHERE" ]', srun=":")
    assert code == 75 and ["scontrol", "requeue"] in calls


def test_a_job_that_was_queued_with_version_0_1_requeues_through_the_old_module(run: RunDir, tmp_path: Path) -> None:
    """Slurm keeps a copy of the script of a queued job, which calls ``python -m adarem.slurm again RUN_DIR CODE``."""
    old = (ROOT / "slurm" / "run.sbatch").read_text().replace("adarem.launch.slurm.requeue", "adarem.slurm")
    script = executable(tmp_path / "run.sbatch", old)
    code, calls = batch(tmp_path, run, setup="kill -USR1 $$", srun=":", script=script)
    assert code == 75 and calls == [["scontrol", "show"], ["scontrol", "requeue"]]


def test_a_job_without_its_submitters_environment(composed: Plan, run: RunDir, tmp_path: Path) -> None:
    """As under ``--export=NONE``: Python and setup come from the sweep's file, and srun passes all on to the ranks."""
    cluster = composed.runs[0].config.cluster
    setup = f"echo of the site >>{shlex.quote(str(tmp_path / 'setup'))}"
    file = tmp_path / "token.job"
    write_job_file(file, replace(cluster, setup=setup), {}, {})
    bin = tmp_path / "bin"
    bin.mkdir()
    log = shlex.quote(str(tmp_path / "calls"))
    executable(bin / "scontrol", f'#!/bin/bash\necho "scontrol $*" >>{log}; [[ $1 != show ]] || echo n1\n')
    executable(
        bin / "srun", f'#!/bin/bash\necho "srun $*" >>{log}; env >{shlex.quote(str(tmp_path / "env"))}; exit 2\n'
    )
    executable(bin / "squeue", "#!/bin/bash\necho 7 RUNNING None\n")
    env = {"PATH": f"{bin}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_NTASKS": "4"}
    env |= {"SLURM_SUBMIT_DIR": "/", "SLURM_EXPORT_ENV": "NONE", "SLURM_CPU_BIND": "mask_cpu:0x1", "RANK": "0"}
    env |= {"SRUN_DEBUG": "3", "SLURM_CPU_BIND_LIST": "0x1", "WORLD_SIZE": "1"}
    command = ["bash", str(RUN_SBATCH), f"--job-file={file}", str(run.path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stdout + done.stderr
    assert (tmp_path / "setup").read_text() == "of the site\n"
    calls = (tmp_path / "calls").read_text()
    assert f"srun --export=ALL --kill-on-bad-exit=1 {sys.executable} -m adarem train {run.path}\n" in calls
    passed = {line.split("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert {"MASTER_ADDR", "ADAREM_TOKEN", "SRUN_CPUS_PER_TASK"} <= passed
    assert (
        not {"RANK", "WORLD_SIZE", "SLURM_CPU_BIND", "SLURM_CPU_BIND_LIST", "SLURM_EXPORT_ENV", "SRUN_DEBUG"} & passed
    )


def test_a_site_that_refuses_to_start_a_job_again(run: RunDir, tmp_path: Path) -> None:
    refusal = "echo 'slurm_requeue error: disabled' >&2; return 1"
    setup = f'scontrol() {{ if [[ $1 == requeue ]]; then {refusal}; fi; command scontrol "$@"; }}'
    code, _ = batch(tmp_path, run, setup=f"{setup}; kill -USR1 $$", srun=":")
    assert code == 75 and "slurm_requeue error: disabled" in json.loads(refusal_file(run).read_text())["line"]


def test_a_report_job_publishes_what_the_launch_names(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    python = executable(tmp_path / "python", f'#!/bin/bash\necho "$@" >>{shlex.quote(str(calls))}\n[[ $3 != wandb ]]\n')
    env = os.environ | {"ADAREM_PYTHON": str(python), "ADAREM_PUBLISH": "runs/table2", "SLURM_SUBMIT_DIR": "/"}
    command = ["bash", str(ROOT / "slurm" / "report.sbatch"), "grid=table2", "results_dir=my results"]
    assert subprocess.run(command, env=env, timeout=60).returncode == 0  # though wandb refuses
    assert calls.read_text().splitlines() == [
        "-m adarem report grid=table2 results_dir=my results",
        "-m adarem wandb publish runs/table2 --results-dir=my results",
    ]
    calls.unlink()
    subprocess.run(command, env=env | {"ADAREM_PUBLISH": ""}, timeout=60)
    assert len(calls.read_text().splitlines()) == 1
