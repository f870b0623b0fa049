import re
import subprocess
import sys

from adarem.run import exitcodes


def test_torchrun_gives_ranks_the_time_for_an_evaluation() -> None:
    """On a signal; torch's own 30 s are less than a large evaluation takes."""
    script = "import os; print(os.environ['TORCH_ELASTIC_SHUTDOWN_TIMEOUT'])"
    command = ["--standalone", "--nproc-per-node=1", "--no-python", sys.executable, "-c", script]
    done = subprocess.run([sys.executable, "-m", "adarem.launch.torchrun", *command], capture_output=True, text=True)
    assert int(done.stdout) >= 120


def test_torchrun_returns_the_exit_code_of_the_first_rank_to_end() -> None:
    script = "import os, sys, time; r = os.environ['RANK']; {}"

    def run(line: str) -> subprocess.CompletedProcess[str]:
        command = ["--standalone", "--nproc-per-node=2", "--no-python", sys.executable, "-c", script.format(line)]
        return subprocess.run(
            [sys.executable, "-m", "adarem.launch.torchrun", *command], capture_output=True, text=True
        )

    diverged = run("sys.exit(3)")
    assert diverged.returncode == exitcodes.DIVERGED and "Traceback" not in diverged.stderr
    killed = run("os.kill(os.getpid(), 9) if r == '1' else time.sleep(30)")
    assert killed.returncode == 137 and re.search(r"rank 1 \(pid \d+\) ended first: killed by SIGKILL", killed.stderr)
