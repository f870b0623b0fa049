"""Takes the place of .venv/bin/python in tests of launching: a rank, torchrun or a report without torch, in 0.1 s.

What a rank does is in ``stub.json`` of its run directory: {"do": "finish" | "fail" | "diverge" | "wait" | "stubborn" |
"lost" | "always lost" | "search"}; one of a search trains to its rung, with a "figure"; a lost one ends as
launch/ranks.py does when a rank is killed, and finishes when it is started once more.
A waiting rank acts as the trainer does on a signal: a checkpoint, a recorded reason, exit code 75; started again, it
finishes. A stubborn one ignores signals, and so does its child, which is in a session of its own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.run.files import write_atomically
from adarem.run.halving import place_of


def train(run: RunDir) -> int:
    rank, world = int(os.environ.get("SLURM_PROCID", 0)), int(os.environ.get("SLURM_NTASKS", 1))
    order = run.path / "stub.json"
    do = json.loads(order.read_text())["do"] if order.exists() else "finish"
    asked: list[int] = []
    for s in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        signal.signal(s, lambda number, _frame: asked.append(number))
    seen = (
        "MASTER_ADDR", "MASTER_PORT", "ADAREM_TOKEN", "SLURM_NODEID", "SLURM_LOCALID", "SLURM_GPUS_ON_NODE",
        "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
    )  # fmt: skip
    write_atomically(run.path / f"rank{rank}.json", json.dumps({k: os.environ.get(k) for k in seen} | {"world": world}))
    checkpoint = run.checkpoints / "1.pt"
    resumed = checkpoint.exists()
    if rank == 0:
        attempt = run.start_attempt(
            {
                "host": socket.gethostname(),
                "slurm_job": os.environ.get("SLURM_JOB_ID"),
                "resumed_from_step": int(resumed),
            }
        )
    if do == "fail":
        while rank and len(run.attempts()) <= int(os.environ.get("SLURM_RESTART_COUNT", 0)):
            time.sleep(0.05)  # the first to fail ends the others, and rank 0 records its start first
        run.log_file.write_text("why it failed")
        return exitcodes.FAILED
    if do == "search" and rank == 0:  # the figure grows with the epochs; the schedule is that of the run's config
        config, place, figure = run.config(), place_of(run), json.loads(order.read_text())["figure"]
        if place is not None and place.state != "due":
            return exitcodes.OK
        until = config.scale.epochs if place is None else place.until
        for epoch in range(run.epochs() + 1, until + 1):
            run.append_metrics({"epoch": epoch, "split": "train", "loss": 1.0})
            run.append_metrics({"epoch": epoch, "split": "holdout", "top1": figure + epoch})
        if until < config.scale.epochs:
            run.end_attempt(attempt, "paused")
        else:
            run.end_attempt(attempt, "done")
            run.write_result({"status": "done", "holdout_top1": figure + until})
        return exitcodes.OK
    if do == "diverge":
        run.write_result({"status": "diverged", "epoch": 2, "step": 30, "reason": "loss is nan"})
        return exitcodes.DIVERGED
    if do == "stubborn":
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        (run.path / "child").write_text(f"{child.pid}\n")
        child.wait()
    if do == "lost" and len(run.attempts()) == 1:
        return 128 + signal.SIGKILL
    if do == "always lost":
        return 128 + signal.SIGKILL
    if do == "wait" and not resumed:
        while not asked:
            time.sleep(0.05)
        (run.path / f"asked{rank}").touch()
        while not all((run.path / f"asked{r}").exists() for r in range(world)):
            time.sleep(0.05)  # the first to end ends the others, which may not have got the signal yet
        time.sleep(0.5)  # for a second signal, which the tests would see
        (run.path / f"signals{rank}").write_text(json.dumps(asked))
        if rank == 0:
            run.checkpoints.mkdir()
            checkpoint.touch()
            run.end_attempt(attempt, "interrupted", signal.Signals(asked[0]).name)
        return exitcodes.REQUEUE
    if rank == 0:
        run.end_attempt(attempt, "done")
        run.write_result({"status": "done", "top1": 50.0})
    return exitcodes.OK


def main(argv: list[str]) -> int:
    assert argv[0] == "-m"
    if argv[1].startswith("adarem.launch.slurm.") or argv[2] == "prepare":
        os.execv(sys.executable, [sys.executable, *argv])
    if argv[1] == "adarem.launch.ranks":
        argv = argv[argv.index("-m", 1) :]
    verb, arguments = argv[2], argv[3:]
    if verb == "train":
        return train(RunDir(Path(arguments[0])))
    assert verb == "report"
    given = dict(a.split("=", 1) for a in arguments)
    configs = Path(given["runs_dir"]).glob("*/*/config.yaml")
    given["status"] = {p.parent.name: RunDir(p.parent).status() for p in configs}
    Path(given["results_dir"]).mkdir(parents=True, exist_ok=True)
    write_atomically(Path(given["results_dir"]) / "report.json", json.dumps(given))  # a test waits for it
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
