"""Kills training at random moments, continues it, and compares the final bits with those of undisturbed runs.

python scripts/torture.py --rounds 50        or: make torture ROUNDS=50

A round is one attack: at a random moment (at start, while the data pipeline compiles, in a step, while a checkpoint is
written, during an evaluation, while the result is written) a random rank or all of them get SIGKILL, or all of them
SIGTERM, SIGUSR1 or SIGINT. The run is started again and again until it is done; then parameters, optimizer state,
metrics without their timings, and the bits of correct.npz must be those of the undisturbed run. Runs cycle through the
optimizers, on one, two and three ranks. Exit code 1 if any round was lost.
"""

import argparse
import collections
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from adarem.plan.plan import make_plan
from adarem.run.directory import RunDir
from adarem.run.files import read_lines
from adarem.train.checkpoint import find_newest, load

RUNS = [
    ("adarem", 3), ("adam", 1), ("adarem_s", 2), ("sgdm", 1), ("adamw", 3), ("rmsprop", 1), ("adabound", 2), ("sgd", 1),
]  # fmt: skip
MOMENTS = ("start", "compile", "step", "checkpoint", "evaluation", "result")
ATTACKS = ("KILL one", "KILL all", "KILL one", "KILL all", "TERM all", "USR1 all", "INT all")
TIMINGS = ("time", "images_per_s", "data_wait", "seconds_train", "seconds_eval", "seconds_checkpoint",
           "peak_memory_bytes")  # fmt: skip
EPOCHS = 3  # of four steps
GONE_WITHIN_SECONDS = 90.0  # of an attack, for every process
ATTEMPTS = 12  # a run that needs more is lost
MISSES = 30  # attacks in a row that came after the run had ended: it fails by itself

# Every fsync takes a while, as on a slow disk, so that an attack finds half-written files.
SLOW_DISK = """\
import os, time
_fsync = os.fsync
def slow(handle):
    time.sleep(0.15)
    _fsync(handle)
    time.sleep(0.15)
os.fsync = slow
"""


def state_of(run: RunDir) -> dict:
    """All of a run that must not depend on interruptions."""
    path, notes = find_newest(run.checkpoints)
    assert path is not None and not notes, notes
    state = load(path)
    del state["training"]["seconds"]
    result = {k: v for k, v in run.result().items() if k in ("status", "steps", "top1", "top5", "val_loss",
              "train_loss", "best_top1", "best_epoch", "fingerprint", "config_hash")}  # fmt: skip
    metrics = [{k: v for k, v in m.items() if k not in TIMINGS} for m in run.metrics()]
    # An epoch that was recorded twice has equal records.
    by_epoch = {(m["epoch"], m["split"]): m for m in metrics}
    for line in read_lines(run.metrics_file).records:
        record, last = {k: v for k, v in line.items() if k not in TIMINGS}, by_epoch[line["epoch"], line["split"]]
        assert record == last, f"{record} and {last}"
    return {"checkpoint": state, "correct": run.correct(), "metrics": metrics, "result": result}


def differences(a: object, b: object, path: str = "") -> list[str]:
    """Places where two states differ in as much as a bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{path}: keys"]
        return [d for k in a for d in differences(a[k], b[k], f"{path}.{k}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return [f"{path}: length"]
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{path}[{i}]")]
    if isinstance(a, torch.Tensor):
        same = isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    elif isinstance(a, np.ndarray):
        same = np.array_equal(a, b)
    else:
        same = a == b
    return [] if same else [path]


def family(pid: int) -> list[int]:
    """A process and its descendants, whatever their sessions."""
    children = collections.defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            children[int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])].append(
                int(stat.parent.name)
            )
        except OSError:
            continue
    found = [pid]
    for member in found:
        found += children[member]
    return found


def ranks_of(pid: int) -> dict[int, int]:
    """Rank to process id, of the training processes that a torchrun has started so far."""
    ranks = {}
    for member in family(pid)[1:]:
        try:
            words = Path(f"/proc/{member}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ranks |= {int(w[5:]): member for w in words if w.startswith(b"RANK=")}
    return ranks


def gone(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] == "Z"
        )
    except OSError:
        return True


@dataclass
class Site:
    """The folder of all runs, and how a run in it is planned and started."""

    folder: Path
    seconds: float = 15.0  # the shortest undisturbed start so far

    def plan(self, optimizer: str, ranks: int, name: str) -> RunDir:
        plan = make_plan([
            "data=digits", f'data.root="{self.folder / "digits"}"', f'runs_dir="{self.folder / name}"',
            "scale=smoke", f"scale.epochs={EPOCHS}", "scale.global_batch_size=288", "model=shufflenet_v2_0.5",
            f"optimizer={optimizer}", f"cluster.ranks_per_node={ranks}", "wandb.mode=disabled",
        ])  # fmt: skip
        plan.write()
        return plan.runs[0].run

    def start(self, run: RunDir, ranks: int, cache: Path | None = None) -> subprocess.Popen:
        paths = [str(self.folder / "slow disk"), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
        environment |= {"NUMBA_CACHE_DIR": str(cache)} if cache else {}
        command = [sys.executable, "-m", "adarem.launch.ranks", f"--nproc-per-node={ranks}"]
        with open(run.path.parent / "output.txt", "ab") as output:
            return subprocess.Popen([*command, "-m", "adarem", "train", str(run.path)], env=environment,
                                    stdout=output, stderr=output, start_new_session=True)  # fmt: skip


def trigger(moment: str, run: RunDir, cache: Path) -> Callable[[], bool]:
    """A function that returns whether a moment has come, from the files of the run."""
    known = run.metrics_file.stat().st_size if run.metrics_file.exists() else 0
    halves = set(run.checkpoints.glob(".step-*"))  # of an attempt that was killed
    starts = len(run.attempts())

    def metrics() -> list[dict]:
        grown = run.metrics_file.exists() and run.metrics_file.stat().st_size > known
        return run.metrics() if grown else []

    def result() -> bool:
        return any(m["epoch"] == EPOCHS and m["split"] == "val" for m in metrics()) or run.result_file.exists()

    return {
        "start": lambda: True,
        "compile": lambda: any(cache.rglob("*.nb?")),
        "step": lambda: len(run.attempts()) > starts,
        "checkpoint": lambda: bool(set(run.checkpoints.glob(".step-*")) - halves),
        "evaluation": lambda: bool(rows := metrics()) and (rows[-1]["epoch"], "val") not in {
            (m["epoch"], m["split"]) for m in rows},
        "result": result,
    }[moment]  # fmt: skip


@dataclass
class Tally:
    rounds: int = 0
    runs: int = 0
    identical: int = 0  # rounds of runs that ended with the same bits
    lost: list[str] = field(default_factory=list)
    attacks: collections.Counter = field(default_factory=collections.Counter)
    codes: collections.Counter = field(default_factory=collections.Counter)


def attack(
    site: Site, run: RunDir, ranks: int, moment: str, how: str, dice: random.Random
) -> tuple[str, int, str | None] | None:
    """Starts a run and attacks it once: the attack, the exit code, and what was wrong. None: the run ended before."""
    with tempfile.TemporaryDirectory(dir=site.folder, prefix="numba-") as folder:
        cache = Path(folder) if moment == "compile" else None
        come, began = trigger(moment, run, Path(folder)), time.monotonic()
        process = site.start(run, ranks, cache)
        while process.poll() is None and not come():
            time.sleep(0.003)
        delay = {"start": site.seconds, "compile": 2.0, "step": 2.0}.get(moment, 0.4) * dice.random()
        end = time.monotonic() + delay
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.003)
        if process.poll() is not None:
            return None
        members, found = family(process.pid), ranks_of(process.pid)
        number, whom = how.split()
        if whom == "one" and found:
            rank = dice.choice(sorted(found))
            how, targets = f"KILL rank {rank}", [found[rank]]
        else:  # Slurm's signals reach the ranks alone, a dying node takes everything
            targets = members if number == "KILL" or not found else list(found.values())
        for pid in targets:
            try:
                os.kill(pid, signal.Signals[f"SIG{number}"])
            except ProcessLookupError:
                continue
        end = time.monotonic() + GONE_WITHIN_SECONDS
        while not (process.poll() is not None and all(gone(p) for p in members)) and time.monotonic() < end:
            time.sleep(0.01)
        left = [p for p in members if not gone(p)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        code = process.wait()
    took = time.monotonic() - began
    wrong = f"{len(left)} processes were left after {GONE_WITHIN_SECONDS:.0f} s" if left else None
    end = time.monotonic() + 5.0  # a killed process's last thread frees the lock a little after the first is gone
    while run.status() == "running" and time.monotonic() < end:
        time.sleep(0.05)
    if wrong is None and run.status() == "running":
        wrong = "its status is running, and no process runs"
    print(f"  {moment:<10}  {how:<11}  exit code {code:>4}  {took:5.1f} s  then {run.status()}", flush=True)
    return how, code, wrong


def finish(site: Site, run: RunDir, ranks: int) -> str | None:
    """Starts a run without disturbing it; what was wrong, or None."""
    for _ in range(3):
        began = time.monotonic()
        code = site.start(run, ranks).wait(600)
        site.seconds = min(site.seconds, time.monotonic() - began)
        if run.status() == "done":
            return None
    output = (run.path.parent / "output.txt").read_text(encoding="utf-8", errors="replace")
    return f"does not finish: exit code {code}, {output[-400:]}"


def torture(rounds: int, folder: Path, seed: int, runs: list[tuple[str, int]]) -> Tally:
    """Attacks ``rounds`` times, in ``folder``. The seed decides moments and attacks, the machine their exact time."""
    site, dice, tally = Site(folder), random.Random(seed), Tally()
    deck: list[tuple[str, str]] = []  # every attack at every moment, in random order
    (folder / "slow disk").mkdir()
    (folder / "slow disk" / "sitecustomize.py").write_text(SLOW_DISK, encoding="utf-8")
    prepare = [sys.executable, "-m", "adarem", "prepare", "data=digits", f'data.root="{folder / "digits"}"']
    subprocess.run([*prepare, "--workers=2"], check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    expected: dict[tuple[str, int], dict] = {}
    while tally.rounds < rounds:
        kind = runs[tally.runs % len(runs)]
        optimizer, ranks = kind
        name = f"{optimizer} on {ranks}"
        if kind not in expected:
            undisturbed = site.plan(*kind, f"undisturbed/{optimizer}-{ranks}")
            problem = finish(site, undisturbed, ranks)
            assert problem is None, problem
            expected[kind] = state_of(undisturbed)
        print(f"run {tally.runs + 1}: {name} {'rank' if ranks == 1 else 'ranks'}", flush=True)
        run = site.plan(*kind, f"attacked/{tally.runs}")
        here, misses, problem = 0, 0, None
        while problem is None and run.status() != "done" and here < ATTEMPTS and tally.rounds + here < rounds:
            if not deck:
                deck = [(moment, how) for moment in MOMENTS for how in ATTACKS]
                dice.shuffle(deck)
            moment, how = deck.pop()
            outcome = attack(site, run, ranks, moment, how, dice)
            if outcome is None:
                deck.insert(0, (moment, how))
                misses += 1
                if misses == MISSES:
                    problem = f"ends by itself, as {run.status()}"
                continue
            how, code, problem = outcome
            here, misses = here + 1, 0
            tally.attacks[moment, how.split()[0]] += 1
            tally.codes[how.split()[0], code] += 1
        if problem is None and run.status() != "done":
            problem = finish(site, run, ranks)
        if problem is None:
            differing = differences(expected[kind], state_of(run))
            problem = f"differs in {', '.join(differing[:5])}" if differing else None
        tally.runs, tally.rounds = tally.runs + 1, tally.rounds + here
        if problem is None:
            tally.identical += here
            shutil.rmtree(run.path.parent.parent)
        else:
            tally.lost.append(f"run {tally.runs}, {name}: {problem} ({run.path})")
        words = problem or f"the same bits after {len(run.attempts()) if run.path.exists() else here + 1} starts"
        print(f"  {words}; {tally.rounds} of {rounds} rounds", flush=True)
    return tally


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="of the attacks (default: another one each time)")
    parser.add_argument("--runs", type=int, default=len(RUNS), help="how many of the kinds of runs take turns")
    args = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="adarem-torture-"))
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, Python {platform.python_version()}, "
          f"torch {torch.__version__}, seed {seed}, in {folder}")  # fmt: skip
    tally = torture(args.rounds, folder, seed, RUNS[: args.runs])
    print("\nmoment      " + "  ".join(f"{kind:>4}" for kind in ("KILL", "TERM", "USR1", "INT")))
    for moment in MOMENTS:
        counts = [tally.attacks[moment, kind] for kind in ("KILL", "TERM", "USR1", "INT")]
        print(f"{moment:<10}  " + "  ".join(f"{n:>4}" for n in counts))
    print("exit codes: " + ", ".join(f"{kind} {code}: {n}" for (kind, code), n in sorted(tally.codes.items())))
    for line in tally.lost:
        print(f"LOST {line}")
    lost = tally.rounds - tally.identical
    print(f"rounds {tally.rounds}, runs {tally.runs}, identical {tally.identical}, lost {lost}, "
          f"{(time.monotonic() - began) / max(tally.rounds, 1):.0f} s per round")  # fmt: skip
    if tally.lost:
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
