"""How well the price of a grid, from what `adarem probe` measures, meets what its runs then take.

    python -m benchmarks.estimate [--pairs 5] [--seconds 10] [words of a grid ...]

Each pair measures every cell of the grid with `adarem probe`, has `adarem plan` estimate its runs, and trains these to
their ends with `adarem train`, in folders of its own; the order of measuring and training alternates. What is compared
is the CPU time of all processes, which other work on the machine changes least; the wall clock stands beside it. Writes
a dated table to benchmarks/results.
"""

import argparse
import datetime
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch

from adarem.plan.plan import Plan, make_plan
from adarem.run.estimate import read_estimates
from adarem.run.machine import cpu_name

WORDS = ["data=digits", "model=shufflenet_v2_0.5,mobilenet_v2_0.5", "optimizer=sgdm,adarem_s"]
GOAL = 15  # percent, of the median ratio


@dataclass(frozen=True)
class Took:
    """Seconds of a run."""

    cpu: float  # of all processes
    wall: float


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "adarem", *words]


def quietly(words: list[str]) -> None:
    """Runs it; what it printed comes with an error only."""
    done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def estimates(words: list[str], folder: Path, seconds: float) -> dict[str, Took]:
    """Of each run, by its name: probed, then planned."""
    words = [*words, f"runs_dir={folder}"]
    quietly(command("probe", *words, f"--seconds={seconds}"))
    quietly(command("plan", *words))
    [sweep] = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return {name: Took(e.cpu_seconds, e.seconds) for name, e in read_estimates(sweep).items()}


def trained(words: list[str], folder: Path) -> dict[str, Took]:
    """What each run took, by its name."""
    plan = make_plan([*words, f"runs_dir={folder}"])
    plan.write()
    found = {}
    for planned in plan.runs:
        before, began = _cpu_of_children(), time.monotonic()
        quietly(command("train", str(planned.run.path)))
        found[planned.run.path.name] = Took(_cpu_of_children() - before, time.monotonic() - began)
    return found


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(plan: Plan, pairs: dict[str, list[tuple[Took, Took]]]) -> list[str]:
    """A row for each network with each optimizer: medians over the pairs."""
    rows = [
        "| network | optimizer | estimate, CPU s | taken, CPU s | taken / estimate (median; all) | by the wall clock |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for planned in plan.runs:
        of_run = pairs[planned.run.path.name]
        ratios = [took.cpu / said.cpu for said, took in of_run]
        rows.append(
            f"| {planned.config.model.label} | {planned.config.optimizer.label} | "
            f"{statistics.median(said.cpu for said, _ in of_run):.1f} | "
            f"{statistics.median(took.cpu for _, took in of_run):.1f} | "
            f"{statistics.median(ratios):.3f}; {', '.join(f'{r:.2f}' for r in sorted(ratios))} | "
            f"{statistics.median(took.wall / said.wall for said, took in of_run):.3f} |"
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of training, a cell, in each measurement")
    parser.add_argument("words", nargs="*", default=WORDS, help="as for adarem plan; one rank and one seed are added")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    pairs: dict[str, list[tuple[Took, Took]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        added = ["cluster.ranks_per_node=1", "seeds=0", "wandb.mode=disabled", f"data.beton_dir={root}/beton"]
        words = [*args.words, *added]
        plan = make_plan([*words, f"runs_dir={root}/plan"])
        quietly(command("prepare", *words))
        estimates(words, root / "warm-up", min(1.0, args.seconds))  # what is compiled once is compiled
        for k in range(args.pairs):
            if k % 2:
                took = trained(words, root / f"train-{k}")
                said = estimates(words, root / f"probe-{k}", args.seconds)
            else:
                said = estimates(words, root / f"probe-{k}", args.seconds)
                took = trained(words, root / f"train-{k}")
            for name, of_run in took.items():
                pairs[name].append((said[name], of_run))
    rows = table(plan, pairs)
    today = datetime.date.today().isoformat()
    ratios = [statistics.median(took.cpu / said.cpu for said, took in of_run) for of_run in pairs.values()]
    worst = max(abs(ratio - 1) for ratio in ratios)
    typed = " ".join(["python -m benchmarks.estimate", f"--pairs {args.pairs} --seconds {args.seconds:g}", *args.words])
    text = "\n".join(
        [
            "# What plan's estimate is worth",
            "",
            f"{today}; {cpu_name()}, {os.cpu_count()} cores, load average {load:.1f} before; Python "
            f"{platform.python_version()}, torch {torch.__version__}. Printed by",
            f"`{typed}`:",
            "what `adarem probe` and `adarem plan` said of each run, beside what `adarem train` then took, medians",
            f"over {args.pairs} interleaved pairs. Other work on the machine changes the wall clock.",
            "",
            *rows,
            "",
            f"The median furthest from 1 is off by {100 * worst:.1f} %; the goal is {GOAL} %. A GPU: not measured.",
        ]
    )
    print(text)
    (Path(__file__).parent / "results" / f"estimate-{today}-cpu.md").write_text(text + "\n", encoding="utf-8")
    return 0 if 100 * worst <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
