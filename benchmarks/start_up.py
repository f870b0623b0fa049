"""Where the time of a short run goes, from the command on: imports, plan, data, start of ranks, first batch, report.

    python -m benchmarks.start_up [--epochs 1]

`adarem launch` trains ResNet-18 on the embedded digits with SGDM, then with Adam, one run after the other: the first
time (nothing prepared, no compiled code on disk), then again in other ways. Functions of the launch and of its ranks
note when they begin or end. Each place of the table has seconds of CPU time, which other work on the machine changes
least, and of wall time; a phase of a run counts the CPU time of all its ranks. ``before`` starts each rank as a new
process that imports all it needs, as all launches did once; ``forked`` is how launches on CPUs start them
(docs/start-up.md). Writes a dated table to benchmarks/results.
"""

import argparse
import contextlib
import datetime
import functools
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

BATCH = 32  # images normalised together, on one rank or two
KINDS = {  # as columns; words of the launch, and whether its ranks are forked
    "first time, 1 rank": (1, True),
    "1 rank, forked": (1, True),
    "1 rank, before": (1, False),
    "2 ranks, forked": (2, True),
    "2 ranks, before": (2, False),
}
IMPORTS = ["torch", "torch._dynamo", "torchvision", "adarem.train.train", "numba", "adarem.data.ffcv.reader"]
OF_LAUNCH = ["plan", "data prepared", "report"]
OF_RUN = {
    "process": "a process with all imports",
    "meet": "ranks meet",
    "data": "data opened",
    "build": "network, optimizer",
    "first batch": "DDP, first batch read",
    "first step": "first step",
    "steps": "the other steps of the epochs",
    "end": "evaluations, checkpoints, result",
}


class Marks:
    """Times of this process, appended to a file when they are taken."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self, what: str) -> None:
        t = os.times()
        line = [what, time.time(), t.user + t.system + t.children_user + t.children_system]
        with self._path.open("a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")

    def around(self, owner: Any, name: str, *, before: str = "", after: str = "", once: bool = True) -> None:
        """Has a function mark when it begins or ends; with ``once`` at the first call alone."""
        function: Callable[..., Any] = getattr(owner, name)
        left = iter([True]) if once else itertools.repeat(True)

        @functools.wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:
            marks = next(left, False)
            if marks and before:
                self.mark(before)
            value = function(*args, **kwargs)
            if marks and after:
                self.mark(after)
            return value

        setattr(owner, name, marked)


def rank(out: Path, run: str) -> int:
    """`adarem train RUN` that marks."""
    from adarem import cli
    from adarem.train import train, trainer

    marks = Marks(out / f"{Path(run).name}.{os.environ['RANK']}")
    marks.mark("process")
    marks.around(train, "join", after="meet")
    marks.around(train, "_build_task", after="data")
    marks.around(trainer.Trainer, "_wrap", before="build")
    marks.around(trainer.Trainer, "_step", before="first batch", after="first step")
    marks.around(trainer.EvaluationPoint, "applied", before="steps")
    code = cli.main(["train", run])
    marks.mark("end")
    return code


def launch(out: Path, forked: bool, words: Sequence[str]) -> int:
    """`adarem launch` that marks, and whose ranks do."""
    from adarem import cli
    from adarem.launch import commands, local, parallel
    from adarem.launch import launch as launching

    marks = Marks(out / "launch")

    def train_command(run: Any, ranks: int) -> list[str]:
        return commands.ranks_command(["-m", "benchmarks.start_up", "--rank", str(out), str(run.path)], ranks)

    def starts(scheduler: Any, task: Any, lease: Any, start: Any = parallel._Scheduler._start) -> None:
        marks.mark(f"start {task.run.path.name}")
        start(scheduler, task, lease)

    local.train_command = train_command
    parallel._Scheduler._start = starts  # type: ignore[method-assign]
    if not forked:
        local._fork_server = lambda plan: contextlib.nullcontext()
    marks.around(launching, "launch_here", before="plan")
    marks.around(local, "_prepare", after="data prepared")
    marks.around(local, "train_all", after="runs")
    marks.around(local, "make_report", after="report")
    return cli.main(["launch", *words])


def read(path: Path) -> list[tuple[str, float, float]]:
    return [tuple(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def between(marks: list[tuple[str, float, float]], began: float) -> Iterator[tuple[str, float, float]]:
    """Each mark with the CPU and wall seconds since the one before."""
    wall, cpu = began, 0.0
    for what, at, spent in marks:
        yield what, spent - cpu, at - wall
        wall, cpu = at, spent


def measure(folder: Path, kind: str, epochs: int) -> dict[str, tuple[float, float]]:
    """(CPU, wall) seconds of each phase of a launch, by its name."""
    ranks, forked = KINDS[kind]
    out = folder / kind.replace(" ", "_").replace(",", "")
    out.mkdir()
    words = ["data=digits", "scale=smoke", f"scale.epochs={epochs}", "model=resnet18", "optimizer=sgdm,adam"]
    words += [f"cluster.ranks_per_node={ranks}", f"scale.micro_batch_size={BATCH}", "cluster.max_parallel=1"]
    words += ["wandb.mode=disabled", f"data.root={folder}/data", f"runs_dir={out}/runs", f"results_dir={out}/results"]
    command = [sys.executable, "-m", "benchmarks.start_up", "--launch", str(out), "forked" if forked else "before"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    env = os.environ | {"NUMBA_CACHE_DIR": f"{folder}/numba", "ADAREM_LOCKS": f"{folder}/locks"}
    subprocess.run([*command, *words], check=True, env=env, stdout=subprocess.DEVNULL)
    ended, after = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {
        "the launch": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ended - began),
    }
    of_launch = read(out / "launch")
    starts = {what.removeprefix("start "): at for what, at, _ in of_launch if what.startswith("start ")}
    found |= {what: (cpu, wall) for what, cpu, wall in between(of_launch, began) if what in OF_LAUNCH}
    for number, (run, start) in enumerate(starts.items(), 1):
        each = [list(between(read(path), start)) for path in sorted(out.glob(f"{run}.[0-9]*"))]
        for phases in zip(*each, strict=True):
            found[f"{number} {phases[0][0]}"] = sum(cpu for _, cpu, _ in phases), phases[0][2]
        first = next(at for what, at, _ in read(out / f"{run}.0") if what == "first batch")
        found[f"{number} to first batch"] = (
            sum(cpu for e in each for what, cpu, _ in e[: list(OF_RUN).index("first batch") + 1]),
            first - (began if number == 1 else start),
        )
    return found


def imports() -> dict[str, tuple[float, float]]:
    """(CPU, wall) seconds of what a rank imports, in that order, each without what those before have brought."""
    code = (
        "import importlib, json, sys, time\n"
        "found = {'python': (time.process_time(), 0.0)}\n"
        "for name in sys.argv[1:]:\n"
        "    cpu, wall = time.process_time(), time.perf_counter()\n"
        "    importlib.import_module(name)\n"
        "    found[name] = time.process_time() - cpu, time.perf_counter() - wall\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code, *IMPORTS], check=True, stdout=subprocess.PIPE)
    found: dict[str, tuple[float, float]] = json.loads(done.stdout)
    return found


def cell(seconds: tuple[float, float] | None) -> str:
    return "" if seconds is None else f"{seconds[0]:.1f} / {seconds[1]:.1f}"


def main() -> None:
    from adarem.run.machine import cpu_name

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    brought = imports()
    with tempfile.TemporaryDirectory() as folder:
        found = {kind: measure(Path(folder), kind, args.epochs) for kind in KINDS}
    together = [sum(seconds) for seconds in zip(*brought.values(), strict=True)]
    lines = [f"| CPU / wall, seconds | {' | '.join(KINDS)} |", f"| --- |{' ---: |' * len(KINDS)}"]

    def row(label: str, key: str) -> None:
        lines.append(f"| {label} | {' | '.join(cell(found[kind].get(key)) for kind in KINDS)} |")

    row("command to plan", "plan")
    row("data prepared", "data prepared")
    for number, name in ((1, "first run"), (2, "second run")):
        for key, label in OF_RUN.items():
            row(f"{name}: {label}", f"{number} {key}")
    row("report", "report")
    row("**the launch**", "the launch")
    row("**command to first batch of the first run**", "1 to first batch")
    row("**start to first batch of the second run**", "2 to first batch")
    today = datetime.date.today().isoformat()
    text = "\n".join(
        [
            "# Where the time of a short run goes",
            "",
            f"{today}; {cpu_name()}, {os.cpu_count()} cores, 1 thread a rank, load average {load:.1f} before; Python "
            f"{platform.python_version()}. Printed by `python -m benchmarks.start_up --epochs {args.epochs}`:",
            "ResNet-18 on the embedded digits, SGDM and then Adam, global batch 64, 32 images normalised together.",
            "CPU time is of all processes of a phase; to the first batch it is that of the run's ranks alone.",
            "",
            "| import in a new process | CPU s | wall s |",
            "| --- | ---: | ---: |",
            *(f"| {name} | {cpu:.2f} | {wall:.2f} |" for name, (cpu, wall) in brought.items()),
            f"| **all** | **{together[0]:.2f}** | **{together[1]:.2f}** |",
            "",
            *lines,
            "",
            "CUDA: not measured.",
        ]
    )
    print(text)
    (Path(__file__).parent / "results" / f"start_up-{today}-cpu.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        sys.exit(rank(Path(sys.argv[2]), sys.argv[3]))
    if sys.argv[1:2] == ["--launch"]:
        sys.exit(launch(Path(sys.argv[2]), sys.argv[3] == "forked", sys.argv[4:]))
    main()
