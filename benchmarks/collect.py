"""How fast the report is: 1,000 run directories of 100 epochs, collected, tabulated and drawn.

    python benchmarks/collect.py [--seeds 21] [--epochs 100]

6 networks x 8 optimizers x 21 seeds = 1,008 runs are written to a temporary folder (not timed), then
`adarem.report.make_report` runs on them in a fresh process. The target is 10 s. Prints wall and CPU
seconds of each part (read the CPU's on a busy machine) and the peak memory.
"""

import argparse
import itertools
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODELS = ["resnet50", "resnet18", "mobilenet_v2_1.0", "mobilenet_v2_0.5", "shufflenet_v2_1.0", "shufflenet_v2_0.5"]
OPTIMIZERS = ["sgd", "sgdm", "adam", "adamw", "adabound", "rmsprop", "adarem", "adarem_s"]


def write_runs(runs_dir: Path, seeds: int, epochs: int) -> int:
    """Run directories as a finished grid leaves them. The curves are written once and copied: fsync is not timed."""
    sys.path.insert(0, str(ROOT / "tests" / "report"))
    from report_factory import finish, make_config, write_grid

    axes = {"model": MODELS, "optimizer": OPTIMIZERS}
    folder = write_grid(runs_dir, "table1", axes=axes, seeds=list(range(seeds)), metrics=["top1", "top5"])
    curves, count = "", 0
    for model in MODELS:
        for optimizer in OPTIMIZERS:
            for seed in range(seeds):
                config = make_config(model, optimizer, seed, grid="table1", changed={"scale": {"epochs": epochs}})
                run = finish(folder, config, 70.0 + 0.01 * seed, epochs=not curves)
                curves = curves or run.metrics_file.read_text().replace('"top1": 70.0', '"top1": 70')
                # The last epoch's figure has to be the result's.
                head, _, last = curves.rstrip("\n").rpartition("\n")
                last = last.replace('"top1": 70', f'"top1": {70.0 + 0.01 * seed:.2f}')
                run.metrics_file.write_text(f"{head}\n{last}\n")
                count += 1
    return count


def measure(runs_dir: Path, results_dir: Path) -> None:
    """In a process of its own: the time of each part, and of the whole verb."""
    marks = [("", time.perf_counter(), time.process_time())]

    def mark(what: str) -> None:
        marks.append((what, time.perf_counter(), time.process_time()))

    from adarem.report import claims, collect, figures, html, latex, tables  # noqa: F401  imported to be timed
    from adarem.report.make import load, make

    mark("import")
    table = load(runs_dir / "table1", results_dir)
    assert table.complete, "the benchmark's runs are not whole"
    mark("collect")
    tables.markdown(table)
    mark("tabulate (Markdown)")
    figures.write_figures(table, results_dir / "figures")
    mark("draw (4 files)")
    make(grid="table1", runs_dir=runs_dir, results_dir=results_dir, data=None, scale=None)
    mark("the whole report")
    print(f"{'':20}  {'wall':>6}  {'CPU':>6}")
    for (_, wall, cpu), (what, wall_after, cpu_after) in itertools.pairwise(marks):
        print(f"{what:20}  {wall_after - wall:6.2f}  {cpu_after - cpu:6.2f} s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB; target: 10 s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=21)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--measure", nargs=2, type=Path, metavar=("RUNS", "RESULTS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        runs, results = Path(folder) / "runs", Path(folder) / "results"
        count = write_runs(runs, args.seeds, args.epochs)
        print(f"{count} runs of {args.epochs} epochs; {os.cpu_count()} cores, {platform.machine()}, "
              f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
        subprocess.run([sys.executable, __file__, "--measure", str(runs), str(results)], check=True)


if __name__ == "__main__":
    main()
