"""How fast the report is, and how much memory it takes, in a lab's folder of runs.

    python -m benchmarks.collect [--seeds 21] [--epochs 100] [--beside 3]

6 networks x 8 optimizers x 21 seeds = 1,008 runs of Table 1 are written to a temporary folder, and beside them every
grid of configs/grid as a reproduction and as a rehearsal with 3 seeds, each reported before, none of it timed. Then
Table 1 is reported in a fresh process, as `adarem report grid=table1` does; its parts are timed in another. Reported:
wall and CPU seconds (read the CPU's on a busy machine) and the peak memory, against targets for the whole report.
Writes a dated table to benchmarks/results.
"""

import argparse
import datetime
import importlib.metadata
import itertools
import json
import math
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
EMBEDDED = {"table1": "digits", "table2": "digits", "figure2": "digits", "lambda": "digits"}
EMBEDDED |= {"table3": "pydoc", "table3_search": "pydoc"}
SECONDS, MEBIBYTES = 10.0, 600.0  # targets for the whole report


class Writer:
    """Run directories as training leaves them. Curves are written once for each kind of run and copied."""

    def __init__(self) -> None:
        self._curves: dict[tuple[str, int], str] = {}
        self._oscillation: dict[int, str] = {}

    def finish(self, folder: Path, config, top1: float, images: int) -> None:
        """A finished run; ``top1`` percent of its ``images`` validation images are right."""
        import numpy as np
        from tests.support.sweeps import finish

        kind, epochs = config.data.kind, config.scale.epochs
        right = np.arange(images) < round(top1 * images / 100) if kind == "images" else None
        run = finish(folder, config, top1, correct=right, epochs=(kind, epochs) not in self._curves)
        perplexity = {"perplexity": 170.0 - top1, "val_perplexity": 172.0 - top1}
        if kind == "text":
            run.write_result(run.result() | perplexity)
        if (kind, epochs) not in self._curves:
            more = {"perplexity": perplexity["val_perplexity"]} if kind == "text" else {}
            self._curves[kind, epochs] = "".join(f"{json.dumps(r | more)}\n" for r in run.metrics())
        head, _, last = self._curves[kind, epochs].rstrip("\n").rpartition("\n")
        last = json.dumps(json.loads(last) | {"top1": top1})  # the last epoch's figure is the result's
        run.metrics_file.write_text(f"{head}\n{last}\n", encoding="utf-8")
        if config.train.oscillation:
            run.oscillation_file.write_text(self._windows(epochs), encoding="utf-8")

    def _windows(self, epochs: int) -> str:
        """A window an epoch, and four parameters' ways of 2,000 steps at the beginning, in the middle, at the end."""
        if epochs not in self._oscillation:
            values = [math.sin(i / 50) for i in range(2001)]
            windows = []
            for e in range(1, epochs + 1):
                watched = range(4) if e in (1, epochs // 2, epochs) else ()
                ways = [{"parameter": f"w[{k}]", "from_step": 1251 * e, "values": values} for k in watched]
                told = dict.fromkeys(("q_mean_with_gradient", "q_median_with_gradient", "share_without_gradient"), 0.5)
                windows.append({"epoch": e, "step": 1251 * e, "q_mean": 50.0 - e / 10, "trajectories": ways, **told})
            self._oscillation[epochs] = "".join(f"{json.dumps(w)}\n" for w in windows)
        return self._oscillation[epochs]


def write_beside(runs_dir: Path, results_dir: Path, seeds: int) -> None:
    """Every grid of configs/grid, rehearsed and reproduced, finished and reported; Table 1 is only rehearsed."""
    from adarem.plan.plan import make_plan
    from adarem.report import make_report

    writer = Writer()
    for data in ("embedded", "genuine"):
        for grid, embedded in EMBEDDED.items():
            if (grid, data) == ("table1", "genuine"):
                continue
            of_data = f"data={embedded}" if data == "embedded" else "data.root=/data"
            plan = make_plan([f"grid={grid}", of_data, f"runs_dir={runs_dir}", f"seeds={list(range(seeds))}"])
            plan.write()
            for cell in plan.runs:
                images = cell.config.data.expected_val or 0
                writer.finish(plan.folder, cell.config, 70.0 + cell.config.seed, images)
            name = embedded if data == "embedded" else None
            make_report(grid=grid, runs_dir=runs_dir, results_dir=results_dir, data=name)


def write_table1(runs_dir: Path, seeds: int, epochs: int) -> None:
    from tests.support.sweeps import make_config, write_grid

    axes = {"model": MODELS, "optimizer": OPTIMIZERS}
    folder = write_grid(runs_dir, "table1", axes=axes, seeds=list(range(seeds)), metrics=["top1", "top5"])
    writer = Writer()
    for model, optimizer, seed in itertools.product(MODELS, OPTIMIZERS, range(seeds)):
        config = make_config(model, optimizer, seed, grid="table1", changed={"scale": {"epochs": epochs}})
        writer.finish(folder, config, 70.0 + 0.01 * seed, 50_000)


def measure_parts(runs_dir: Path, results_dir: Path) -> list[tuple[str, float, float]]:
    """(part, wall, CPU) of Table 1 alone."""
    marks = [("", time.perf_counter(), time.process_time())]

    def mark(what: str) -> None:
        marks.append((what, time.perf_counter(), time.process_time()))

    from adarem.report.figures.write import write_figures
    from adarem.report.make import load_table
    from adarem.report.tables import render as tables

    mark("import")
    table = load_table(runs_dir / "table1", results_dir)
    assert table.complete and not any(r.problems for r in table.sweep.runs), "the benchmark's runs are not whole"
    mark("collect")
    tables.markdown(table)
    mark("tabulate (Markdown)")
    write_figures(table, results_dir / "table1" / "figures")
    mark("draw")
    return [
        (what, wall - before, cpu - cpu_before)
        for (_, before, cpu_before), (what, wall, cpu) in itertools.pairwise(marks)
    ]


def measure_whole(runs_dir: Path, results_dir: Path) -> tuple[float, float, float]:
    """Wall and CPU seconds of the whole report, imports included, and the peak memory in MiB."""
    wall, cpu = time.perf_counter(), time.process_time()
    from adarem.report import make_report

    make_report(grid="table1", runs_dir=runs_dir, results_dir=results_dir)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return time.perf_counter() - wall, time.process_time() - cpu, peak


def fresh(part: str, runs_dir: Path, results_dir: Path):
    """What a measurement returns that runs in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.collect", "--measure", part, str(runs_dir), str(results_dir)]
    return json.loads(
        subprocess.run(command, check=True, capture_output=True, encoding="utf-8", errors="replace").stdout
    )


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=21)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--beside", type=int, default=3, help="seeds of the sweeps beside")
    parser.add_argument("--measure", nargs=3, metavar=("PART", "RUNS", "RESULTS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        part, *folders = args.measure
        print(json.dumps({"parts": measure_parts, "whole": measure_whole}[part](*map(Path, folders))))
        return
    with tempfile.TemporaryDirectory() as folder:
        runs, results = Path(folder) / "runs", Path(folder) / "results"
        write_beside(runs, results, args.beside)
        beside = len(list(runs.glob("*/*/config.yaml"))), len(list(runs.glob("*/grid.yaml")))
        write_table1(runs, args.seeds, args.epochs)
        count, load = len(list(runs.glob("table1/*/config.yaml"))), os.getloadavg()[0]
        parts = fresh("parts", runs, Path(folder) / "parts")
        wall, cpu, peak = fresh("whole", runs, results)
    date = datetime.date.today().isoformat()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "matplotlib"))
    lines = [
        "# The report of a lab's runs",
        "",
        f"{date}; {cpu_name()}, {os.cpu_count()} cores, load {load:.1f} before; Python {platform.python_version()}, "
        f"{versions}. Table 1 with {count:,} runs of {args.epochs} epochs, beside it {beside[0]:,} runs in {beside[1]} "
        f"sweeps. Made by `python -m benchmarks.collect --seeds {args.seeds} --epochs {args.epochs} --beside "
        f"{args.beside}`.",
        "",
        "| Table 1 alone | wall s | CPU s |",
        "| --- | ---: | ---: |",
        *(f"| {what} | {w:.2f} | {c:.2f} |" for what, w, c in parts),
        f"| **the whole report, beside the others** | **{wall:.2f}** | **{cpu:.2f}** |",
        "",
        "## Targets",
        "",
        f"- the whole report {wall:.1f} s, target {SECONDS:.0f} s: {'met' if wall <= SECONDS else 'missed'}",
        f"- its peak memory {peak:.0f} MiB, target {MEBIBYTES:.0f} MiB: {'met' if peak <= MEBIBYTES else 'missed'}",
        "",
    ]
    text = "\n".join(lines)
    print(text)
    (Path(__file__).parent / "results" / f"collect-{date}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
