"""Launching with stand-ins for python, sbatch and squeue; a real Slurm is in tests/slurm."""

import contextlib
import errno
import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from adarem.launch import launch
from adarem.launch.slurm import jobs as slurm
from adarem.plan.plan import make_plan
from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from tests.support import ROOT

STUB = ROOT / "tests" / "support" / "sbatch_stub.py"
NASTY = """a b 'c' "d" $(touch hacked) `touch hacked`; %j\nnew line"""


def executable(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    return make_plan(["grid=table2", "data=digits", "scale=smoke", "optimizer=sgdm,adam,adarem", f"data.root={root}"])


@pytest.fixture
def plan(composed, tmp_path, monkeypatch):
    """Three cells under a folder with a hostile name; the python that launch starts is the stub, the data are there."""
    stub = executable(tmp_path / "python", f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
    monkeypatch.setattr(sys, "executable", str(stub))
    monkeypatch.setattr(launch, "is_prepared", lambda data: True)
    return moved(composed, tmp_path / NASTY)


def moved(plan, runs_dir, **cluster):
    """The plan under another folder and with another cluster."""
    folder = runs_dir / plan.folder.name
    cells = [
        replace(
            c,
            run=RunDir(folder / c.config.cell),
            config=replace(c.config, cluster=replace(c.config.cluster, **cluster)),
        )
        for c in plan.cells
    ]
    return replace(plan, folder=folder, runs_dir=runs_dir, results_dir=runs_dir.parent / "results", cells=cells)


def order(plan, *what):
    plan.write()
    for cell, do in zip(plan.cells, what, strict=True):
        (cell.run.path / "stub.json").write_text(json.dumps({"do": do}))


# --- this machine ---------------------------------------------------------------------------------------------------


def test_failed_cell_does_not_stop_the_rest_and_finished_ones_are_left(plan, capfd):
    order(plan, "fail", "diverge", "finish")
    assert launch.launch(plan) == exitcodes.FAILED
    out = capfd.readouterr().out
    failed, diverged, finished = (c.run for c in plan.cells)
    assert [r.status() for r in (failed, diverged, finished)] == ["failed", "diverged", "done"]
    assert "[1/3] resnet18-sgdm-s0: FAILED" in out and f"failed: resnet18-sgdm-s0; log: {failed.log_file}" in out
    assert "[2/3] resnet18-adam-s0: diverged in epoch 2" in out
    assert "[3/3] resnet18-adarem-s0: top-1 50.00 %" in out

    (failed.path / "stub.json").unlink()
    assert launch.launch(plan) == exitcodes.OK
    assert [len(r.attempts()) for r in (failed, diverged, finished)] == [2, 1, 1]
    assert json.loads((plan.results_dir / "report.json").read_text())["status"]["resnet18-sgdm-s0"] == "done"


def test_locked_cell_is_left_alone_and_named(plan, capfd):
    plan.write()
    with plan.cells[1].run.lock():
        assert launch.launch(plan) == exitcodes.OK
    assert [c.run.status() for c in plan.cells] == ["done", "planned", "done"]
    assert f"left alone, another process works on it: {plan.cells[1].run.path}" in capfd.readouterr().out


def test_data_are_prepared_first_and_nothing_trains_without_them(plan, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(launch, "is_prepared", lambda data: (Path(data.beton_dir) / "ready").exists())
    beton_dir = plan.cells[0].config.data.beton_dir
    script = 'if [ "$3" = prepare ]; then echo prepare "$4" >>{log}; {then}; else exec {stub} "$@"; fi'
    log, stub = tmp_path / "log", shlex.quote(sys.executable)
    failing = executable(tmp_path / "p1", "#!/bin/sh\n" + script.format(log=log, then="exit 2", stub=stub))
    monkeypatch.setattr(sys, "executable", str(failing))
    assert launch.launch(plan) == exitcodes.USER_ERROR
    assert {c.run.status() for c in plan.cells} == {"planned"}
    then = f"mkdir -p {beton_dir}; touch {beton_dir}/ready"
    working = executable(tmp_path / "p2", "#!/bin/sh\n" + script.format(log=log, then=then, stub=stub))
    monkeypatch.setattr(sys, "executable", str(working))
    assert launch.launch(plan) == exitcodes.OK
    assert log.read_text() == f"prepare {plan.cells[0].run.path}\n" * 2  # once a launch, not once a cell


def test_dry_run_prints_exact_commands_and_writes_nothing(plan, tmp_path, capsys):
    assert launch.launch(plan, dry_run=True) == exitcodes.OK
    commands = shlex.split(capsys.readouterr().out)
    for cell in plan.cells:
        assert str(cell.run.path) in commands
    assert "--nproc-per-node=2" in commands and f"runs_dir={plan.runs_dir}" in commands
    assert not plan.runs_dir.exists()


def test_several_nodes_need_slurm(plan):
    with pytest.raises(UserError, match="cluster.nodes=2"):
        launch.launch(moved(plan, plan.runs_dir, nodes=2))


def test_one_line_of_setup_and_the_threads_reach_the_ranks(plan):
    plan = moved(plan, plan.runs_dir, setup="export MASTER_ADDR='of the site'", threads_per_rank=3)
    assert launch.launch(plan) == exitcodes.OK
    seen = json.loads((plan.cells[0].run.path / "rank0.json").read_text())
    assert seen["MASTER_ADDR"] == "of the site" and seen["OMP_NUM_THREADS"] == "3"


def wait_for(ready, seconds=20):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


@contextlib.contextmanager
def launching(plan):
    """A launch in a process of its own, as a user's shell starts it; the plan's stub stays its python."""
    code = (
        "import sys, pickle; from adarem.launch import launch; launch.is_prepared = lambda data: True\n"
        f"sys.executable = {sys.executable!r}\n"
        "sys.exit(launch.launch(pickle.load(sys.stdin.buffer)))"
    )
    process = subprocess.Popen(
        [f"{sys.prefix}/bin/python", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    process.stdin.write(pickle.dumps(plan))
    process.stdin.close()
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_ctrl_c_reaches_the_ranks_once_and_ends_the_launch(plan):
    order(plan, "finish", "wait", "finish")
    run = plan.cells[1].run
    with launching(plan) as process:
        wait_for((run.path / "rank0.json").exists)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == exitcodes.REQUEUE
        out = process.stdout.read().decode()
    assert "the same command goes on where it stopped" in out
    assert json.loads((run.path / "signals").read_text()) == [signal.SIGINT]
    assert [c.run.status() for c in plan.cells] == ["done", "interrupted", "planned"]
    assert launch.launch(plan) == exitcodes.OK
    assert [len(c.run.attempts()) for c in plan.cells] == [1, 2, 1]


def test_second_ctrl_c_kills_every_rank_at_once(plan):
    order(plan, "stubborn", "finish", "finish")
    child = plan.cells[0].run.path / "child"
    with launching(plan) as process:
        wait_for(lambda: child.exists() and child.read_text().endswith("\n"))
        process.send_signal(signal.SIGINT)
        line = b""
        while b"Ctrl-C again ends at once" not in line:  # the first one was seen
            assert (line := process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == exitcodes.REQUEUE
    pid = int(child.read_text())
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text(), 30)


def test_a_terminal_that_goes_away_does_not_keep_the_signal_from_the_child(tmp_path):
    """SIGHUP comes when there is nowhere to print to any more; the child is asked to stop all the same."""
    code = (
        "import os, sys; from adarem.launch.child import run_child\n"
        f"stop = 'trap \"touch {tmp_path}/asked; exit 75\" TERM; touch {tmp_path}/up; while :; do sleep 0.05; done'\n"
        "os._exit(run_child(['bash', '-c', stop], dict(os.environ))[0])"
    )
    process = subprocess.Popen([f"{sys.prefix}/bin/python", "-c", code], stderr=subprocess.PIPE)
    wait_for((tmp_path / "up").exists)
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 75 and (tmp_path / "asked").exists()


def test_torchrun_gives_ranks_the_time_for_an_evaluation(tmp_path):
    """On a signal; torch's own 30 s are less than a large evaluation takes."""
    script = "import os; print(os.environ['TORCH_ELASTIC_SHUTDOWN_TIMEOUT'])"
    command = ["--standalone", "--nproc-per-node=1", "--no-python", sys.executable, "-c", script]
    done = subprocess.run([sys.executable, "-m", "adarem.launch.torchrun", *command], capture_output=True, text=True)
    assert int(done.stdout) >= 120


def test_torchrun_hands_on_the_first_rank_s_exit_code(tmp_path):
    script = "import os, sys, time; r = os.environ['RANK']; {}"

    def run(line):
        command = ["--standalone", "--nproc-per-node=2", "--no-python", sys.executable, "-c", script.format(line)]
        return subprocess.run(
            [sys.executable, "-m", "adarem.launch.torchrun", *command], capture_output=True, text=True
        )

    diverged = run("sys.exit(3)")
    assert diverged.returncode == exitcodes.DIVERGED and "Traceback" not in diverged.stderr
    killed = run("os.kill(os.getpid(), 9) if r == '1' else time.sleep(30)")
    assert killed.returncode == 137 and re.search(r"rank 1 \(pid \d+\) ended first: killed by SIGKILL", killed.stderr)


def test_launch_needs_no_torch():
    code = "import sys, adarem.launch.launch; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([f"{sys.prefix}/bin/python", "-c", code]).returncode == 0


# --- Slurm ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(plan, tmp_path, monkeypatch):
    """A plan for Slurm, and an sbatch that records what it is given: returns (plan, submissions)."""
    bin = tmp_path / "bin"
    bin.mkdir()
    record = tmp_path / "submissions"
    record.mkdir()
    executable(
        bin / "sbatch",
        f"#!/bin/bash\nn=$(ls {record} | wc -l)\n"
        f'{{ printf "%s\\0" "$ADAREM_PYTHON" "$ADAREM_SETUP" "${{OMP_NUM_THREADS-unset}}" "$@"; }} >{record}/$n\n'
        'echo "$((100 + n));cluster"\n',
    )
    executable(bin / "squeue", f"#!/bin/bash\ncat {tmp_path}/queue 2>/dev/null\nexit 0\n")
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def submissions():
        return [(record / str(n)).read_text().split("\0")[:-1] for n in range(len(list(record.iterdir())))]

    plan = moved(
        plan, plan.runs_dir, name="slurm", device="cuda", nodes=2, ranks_per_node=8, cpus_per_rank=4, partition="gp u",
        account="$(id)", time="1-00:00:00", max_parallel=4, extra=("--qos=high", "--comment=two words"),
        setup="module load 'cuda'", threads_per_rank=0,
    )  # fmt: skip
    return plan, submissions


def test_sbatch_gets_exactly_these_words(site, capsys):
    plan, submissions = site
    assert launch.launch(plan) == exitcodes.OK
    array, report = submissions()
    assert array[:3] == [sys.executable, "module load 'cuda'", "unset"]
    name = array[4].removeprefix("--job-name=table2-digits-smoke-")
    listing = plan.folder / "slurm" / f"{name}.txt"
    logs = str(plan.folder / "slurm").replace("%", "%%")
    assert array[3:] == [
        "--parsable",
        f"--job-name=table2-digits-smoke-{name}",
        "--array=0-2%4",
        "--nodes=2",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--cpus-per-task=4",
        "--time=1-00:00:00",
        f"--output={logs}/%A_%a.out",
        "--partition=gp u",
        "--account=$(id)",
        "--qos=high",
        "--comment=two words",
        str(ROOT / "slurm" / "run.sbatch"),
        str(listing),
    ]
    assert listing.read_text() == "".join(f"{c.config.cell}\n" for c in plan.cells)
    assert report[3:6] == ["--parsable", "--job-name=table2-digits-smoke-report", "--dependency=afterany:100"]
    assert f"runs_dir={plan.runs_dir}" in report and "grid=table2" in report
    out = capsys.readouterr().out
    assert "array    job 100: 3 runs, 2 nodes x 8 ranks each" in out and "squeue --array --jobs=100" in out


def test_missing_data_are_prepared_by_a_job_that_the_array_waits_for(site, monkeypatch):
    plan, submissions = site
    monkeypatch.setattr(launch, "is_prepared", lambda data: False)
    launch.launch(plan)
    prepare, array, report = submissions()
    assert "--dependency=singleton" in prepare and prepare[-1] == str(plan.cells[0].run.path)
    assert "--cpus-per-task=32" in prepare
    assert {"--dependency=afterok:100", "--kill-on-invalid-dep=yes"} <= set(array)
    assert "--dependency=afterany:101" in report


@pytest.mark.parametrize(("aux", "expected"), [(None, "gp u"), ("cpus", "cpus")])
def test_jobs_without_gpus_get_flags_of_their_own(site, monkeypatch, aux, expected):
    """--gres or a constraint meant for the runs would keep the prepare and the report job waiting, or be refused."""
    plan, submissions = site
    plan = moved(plan, plan.runs_dir, aux_partition=aux, aux_extra=("--qos=short", "--mem=8G"))
    monkeypatch.setattr(launch, "is_prepared", lambda data: False)
    launch.launch(plan)
    prepare, array, report = submissions()
    for job in (prepare, report):
        script = next(i for i, word in enumerate(job) if word.endswith(".sbatch"))
        assert job[script - 4 : script] == [f"--partition={expected}", "--account=$(id)", "--qos=short", "--mem=8G"]
        assert "--qos=high" not in job
    assert array[-6:-2] == ["--partition=gp u", "--account=$(id)", "--qos=high", "--comment=two words"]


def test_cpu_clusters_are_asked_for_no_gpus(site):
    plan, submissions = site
    launch.launch(moved(plan, plan.runs_dir, device="cpu", threads_per_rank=2, max_parallel=0))
    assert {"--gpus-per-node=0", "--array=0-2"} <= set(submissions()[0]) and submissions()[0][2] == "2"


def test_queued_running_and_finished_cells_are_not_submitted_again(site, tmp_path, capsys):
    plan, submissions = site
    launch.launch(plan)
    name = submissions()[0][4].removeprefix("--job-name=")
    waits = "101 N/A table2-digits-smoke-report\n"
    (tmp_path / "queue").write_text(f"100 0 {name}\n100 2 {name}\n100 N/A another\n{waits}")
    plan.cells[1].run.write_result({"status": "done", "top1": 70.0})
    launch.launch(plan)
    assert len(submissions()) == 2
    out = capsys.readouterr().out
    assert "resnet18-sgdm-s0: already in the queue as job 100_0" in out and "top-1 70.00 %" in out

    (tmp_path / "queue").write_text(f"100 2 {name}\n")
    launch.launch(plan)
    array, report = submissions()[2:]
    assert "--array=0-0%4" in array and Path(array[-1]).read_text() == "resnet18-sgdm-s0\n"
    assert "--dependency=afterany:102:100" in report  # the table waits for the older job too


def test_a_report_job_that_was_refused_is_submitted_by_the_next_launch(site, tmp_path, capsys):
    plan, submissions = site
    sbatch = tmp_path / "bin" / "sbatch"
    taken = sbatch.read_text()
    refuse = 'case "$*" in *report.sbatch*) echo "error: Invalid qos" >&2; exit 1;; esac\n'
    executable(sbatch, taken.replace("#!/bin/bash\n", f"#!/bin/bash\n{refuse}"))
    with pytest.raises(UserError, match=r"Invalid qos.*queued without a report: mend cluster.aux_partition"):
        launch.launch(plan)
    (array,) = submissions()
    name = array[4].removeprefix("--job-name=")
    queue = "".join(f"100 {i} {name}\n" for i in range(3))
    another = "77 N/A table2-digits-smoke-report\n"  # of a campaign of that name elsewhere
    (tmp_path / "queue").write_text(queue + another)
    executable(sbatch, taken)
    assert launch.launch(plan) == exitcodes.OK
    (report,) = submissions()[1:]
    assert "--dependency=afterany:100" in report and f"runs_dir={plan.runs_dir}" in report
    assert "report   job 101: when all have ended" in capsys.readouterr().out
    (tmp_path / "queue").write_text(queue + another + another.replace("77", "101"))
    assert launch.launch(plan) == exitcodes.OK
    assert len(submissions()) == 2  # it waits: one is enough


def test_nothing_is_submitted_when_squeue_cannot_tell(site, tmp_path):
    plan, submissions = site
    launch.launch(plan)
    executable(tmp_path / "bin" / "squeue", "#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    with pytest.raises(UserError, match="Unable to contact slurm controller"):
        launch.launch(plan)
    assert len(submissions()) == 2


def test_a_refusing_sbatch_is_quoted_and_leaves_no_list(site, tmp_path):
    plan, _ = site
    executable(tmp_path / "bin" / "sbatch", "#!/bin/sh\necho 'error: invalid partition specified: gp u' >&2; exit 1\n")
    with pytest.raises(UserError, match="invalid partition specified: gp u"):
        launch.launch(plan)
    assert not list((plan.folder / "slurm").glob("*.txt"))


def test_slurm_dry_run_prints_the_lines_and_writes_nothing(site, capsys):
    plan, submissions = site
    assert launch.launch(plan, dry_run=True) == exitcodes.OK
    out = capsys.readouterr().out
    assert submissions() == [] and not plan.runs_dir.exists()
    words = shlex.split(out[out.index("sbatch --parsable") :], comments=True)
    assert words.count("sbatch") == 2 and "--account=$(id)" in words and "--dependency=afterany:JOB1" in words


def test_without_sbatch_the_remedy_is_named(site, monkeypatch):
    plan, _ = site
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="cluster=local cluster.device=cuda"):
        launch.launch(plan)


def test_header_of_run_sbatch_equals_the_config():
    header = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)", (ROOT / "slurm" / "run.sbatch").read_text(), re.M))
    config = yaml.safe_load((ROOT / "configs" / "cluster" / "slurm.yaml").read_text())
    assert header["nodes"] == str(config["nodes"])
    assert header["ntasks-per-node"] == header["gpus-per-node"] == str(config["ranks_per_node"])
    assert header["cpus-per-task"] == str(config["cpus_per_rank"])
    assert header["time"] == config["time"]


# --- after a job -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(plan, monkeypatch):
    for key in ("SLURM_JOB_ID", "SLURM_CONF"):
        monkeypatch.delenv(key, raising=False)
    plan.write()
    return plan.cells[0].run


def test_exit_codes_that_start_a_job_again(run):
    assert all(slurm.again(run, exitcodes.REQUEUE) for _ in range(4))
    assert all(slurm.again(run, 128 + signal.SIGUSR1) for _ in range(4))  # warned while Python was still importing
    assert not any(slurm.again(run, code) for code in (exitcodes.OK, exitcodes.USER_ERROR, exitcodes.DIVERGED))


def test_three_failures_without_a_new_checkpoint_end_it(run):
    run.start_attempt({})
    assert [slurm.again(run, 1), slurm.again(run, 137)] == [True, True]
    run.checkpoints.mkdir()
    (run.checkpoints / "100.pt").touch()  # progress: counting starts anew
    assert [slurm.again(run, 1) for _ in range(3)] == [True, True, False]
    assert run.status() == "failed" and "3 times without a new checkpoint" in run.attempts()[-1]["detail"]
    assert slurm.again(run, 1)  # launched again by hand: three more chances


def test_an_end_hidden_by_a_killed_rank_counts(run):
    run.start_attempt({})
    assert [slurm.again(run, 137), slurm.again(run, 137)] == [True, True]
    run.end_attempt(1, "interrupted", "SIGUSR1")
    assert slurm.again(run, 137)
    run.write_result({"status": "done"})
    assert not slurm.again(run, 137)


def test_a_job_being_cancelled_stays_cancelled_and_one_out_of_time_goes_on(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for state, starts in (("COMPLETING None", False), ("COMPLETING TimeLimit", True), ("RUNNING None", True)):
        executable(tmp_path / "squeue", f"#!/bin/sh\necho 7 {state}\n")
        assert slurm.again(run, exitcodes.REQUEUE) is starts


def test_an_arrays_last_task_is_not_taken_for_another_one(run, tmp_path, monkeypatch):
    """It has the array's own id, for which squeue lists every task."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    others = "8 PENDING BeginTime\\n9 COMPLETING None\\n"
    for own, starts in (("7 RUNNING None", True), ("7 COMPLETING None", False)):
        executable(tmp_path / "squeue", f"#!/bin/sh\nprintf '{others}{own}\\n'\n")
        assert slurm.again(run, exitcodes.REQUEUE) is starts


def test_a_job_gives_up_without_a_word_in_another_ones_attempt(run, capsys):
    """One that Slurm lost sight of may go on for a while; its attempt is its own to end."""
    run.start_attempt({})
    with run.lock():
        assert [slurm.again(run, 1) for _ in range(3)] == [True, True, False]
    assert "end" not in run.attempts()[-1] and "another process works on it" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "code"), [(errno.EIO, 0), (errno.ENOSPC, 1)])
def test_a_disk_that_cannot_keep_the_count_of_failures(run, monkeypatch, capsys, error, code):
    """A sick one is tried again, a full one is the user's to mend; neither shows a traceback."""

    def fail(_handle):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fail)
    assert slurm.main(["again", str(run.path), "1"]) == code
    assert "cannot be written" in capsys.readouterr().err


def batch(tmp_path, run, setup, srun):
    """slurm/run.sbatch with stand-ins for Slurm's commands; what each was called with, in order."""
    bin = tmp_path / "bin"
    bin.mkdir()
    log = f'echo "$(basename "$0") $*" >>{shlex.quote(str(tmp_path / "calls"))}'
    executable(bin / "scontrol", f"#!/bin/bash\n{log}\n[[ $1 != show ]] || echo n1\n")
    executable(bin / "srun", f"#!/bin/bash\n{srun}\n{log}; exit 75\n")
    executable(bin / "squeue", "#!/bin/bash\necho 7 RUNNING None\n")
    env = os.environ | {"PATH": f"{bin}:{os.environ['PATH']}", "ADAREM_PYTHON": f"{sys.prefix}/bin/python"}
    env |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_SUBMIT_DIR": "/", "SLURM_NTASKS": "1"}
    command = ["bash", str(ROOT / "slurm" / "run.sbatch"), str(run.path)]
    done = subprocess.run(command, env=env | {"ADAREM_SETUP": setup}, capture_output=True, text=True, timeout=60)
    return done.returncode, [c.split()[:2] for c in (tmp_path / "calls").read_text().splitlines()]


def test_a_warning_before_anything_was_begun(run, tmp_path):
    """While the site's setup runs: nothing is started, and the job starts again."""
    code, calls = batch(tmp_path, run, setup="kill -USR1 $$", srun=":")
    assert code == 75 and calls == [["scontrol", "show"], ["scontrol", "requeue"]]


def test_a_warning_in_the_first_moments_of_a_job_reaches_the_ranks(run, tmp_path):
    # The shell is warned by what it starts, in the same moment; srun does not listen at once.
    listen = "for _ in {1..50}; do [[ -z ${warned-} ]] || { set -- warned; break; }; sleep 0.1; done"
    code, calls = batch(tmp_path, run, setup=":", srun=f"kill -USR1 $PPID; sleep 0.3; trap 'warned=1' USR1; {listen}")
    assert code == 75 and calls == [["scontrol", "show"], ["srun", "warned"], ["scontrol", "requeue"]]


def test_the_setup_of_a_site_may_look_at_variables_that_are_not_set(run, tmp_path):
    code, calls = batch(tmp_path, run, setup='[ -z "$NOT_SET_ANYWHERE" ]', srun=":")
    assert code == 75 and ["scontrol", "requeue"] in calls


def test_what_a_job_that_gives_up_says(run):
    """The reason of the last failure stays; where no rank came as far as to begin an attempt, the exit code stands."""
    run.end_attempt(run.start_attempt({}), "failed", "rank 1 on n2 is gone after step 7")
    assert [slurm.again(run, 1) for _ in range(3)] == [True, True, False]
    assert run.attempts()[-1]["detail"].endswith("; the last time: rank 1 on n2 is gone after step 7")
    run.end_attempt(run.start_attempt({}), "interrupted", "SIGUSR1 at step 9")
    assert [slurm.again(run, 143) for _ in range(3)] == [True, True, False]
    assert [a["why"] for a in run.attempts()] == ["failed", "interrupted", "failed"] and run.status() == "failed"
    assert run.attempts()[-1]["detail"].endswith("; the last time: exit code 143")
