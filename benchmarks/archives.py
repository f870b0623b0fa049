"""What it costs to prepare ImageNet's archives in place, against the same images as files in folders.

    python -m benchmarks.archives [--images 20000] [--rounds 3] [--out benchmarks/results]

Small generated JPEGs (96 x 72 pixels, about 4 kB) in 1,000 classes are written to a temporary folder as train/<wnid>/,
as image-net.org's tar of tars and as Kaggle's zip, each next to the same val/. A process of its own lists a layout (an
index of all members; no image is read), another prepares it with one worker; rounds are interleaved. Files are in the
page cache. Small images make the archive's share large: ImageNet's are 25 times larger, and decoding takes more time.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
LAYOUTS = {"folders": "train/<wnid>/", "tar": "ILSVRC2012_img_train.tar", "zip": "Kaggle's zip"}
CLASSES, VAL = 1000, 1000
Part = Literal["list", "prepare"]


def make_data(work: Path, images: int) -> None:
    from tests.support.imagenet_archives import write_kaggle_zip, write_train_tar
    from tests.support.imagenet_tree import jpeg, photograph, with_comment

    pictures = [jpeg(photograph(96, 72, seed)) for seed in range(48)]
    tree = work / "folders"
    for n in range(images + VAL):
        split, k = ("train", n) if n < images else ("val", n - images)
        folder = tree / split / f"n{1440764 + 7919 * (k % CLASSES):08d}"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{folder.name}_{k}.JPEG" if split == "train" else f"ILSVRC2012_val_{k + 1:08d}.JPEG"
        (folder / name).write_bytes(with_comment(pictures[n % len(pictures)], name))
    for layout, write in (("tar", write_train_tar), ("zip", write_kaggle_zip)):
        (work / layout).mkdir()
        write(tree, work / layout)
    shutil.copytree(tree / "val", work / "tar" / "val")


def measure(work: Path, layout: str, part: Part) -> dict[str, float | str]:
    """Wall and CPU seconds, MiB of memory added at the peak, and what came out."""
    from tests.support.photos import data_config

    from adarem.data.images.open_source import open_source
    from adarem.data.prepare import prepare
    from adarem.run.config import WriteConfig

    out = Path(tempfile.mkdtemp(dir=work))
    write = WriteConfig("proportion", 500, 90, 0.5)
    data = data_config(work / layout, num_classes=CLASSES, beton_dir=str(out), write=write)
    before = peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    if part == "list":
        result = open_source(data)["train"].listing_hash
    else:
        result = prepare(data, workers=1, progress=False)["train"]["content_hash"]
    spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    memory = peak_memory() - before
    shutil.rmtree(out)
    return {**spent, "memory": memory, "result": result}


def peak_memory() -> float:
    """MiB of this program; getrusage counts that of the process which started it too."""
    with open("/proc/self/status", encoding="utf-8") as f:
        return next(float(line.split()[1]) for line in f if line.startswith("VmHWM")) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for archives-DATE.md; without it the table is only printed")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        work, layout, part = args.one
        print(json.dumps(measure(Path(work), layout, part)))
        return
    found: dict[tuple[str, Part], list[dict[str, float]]] = {}
    results: dict[Part, set[str]] = {"list": set(), "prepare": set()}
    parts: tuple[Part, ...] = ("list", "prepare")
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder), args.images)
        for _ in range(args.rounds):
            for part in parts:
                for layout in LAYOUTS:
                    command = [sys.executable, "-m", "benchmarks.archives", "--one", folder, layout, part]
                    done = subprocess.run(
                        command, cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace", check=True
                    )
                    one = json.loads(done.stdout)
                    results[part].add(one["result"])
                    found.setdefault((layout, part), []).append(one)
                    print(layout, part, one, file=sys.stderr, flush=True)
    assert all(len(r) == 1 for r in results.values()), "the layouts are not the same source"
    lines = [
        "| what | wall s | CPU s | CPU, ratio to folders | memory added, MiB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for part in parts:
        for layout, what in LAYOUTS.items():
            wall, cpu, memory = (
                statistics.median(r[k] for r in found[layout, part]) for k in ("wall", "cpu", "memory")
            )
            ratio = cpu / statistics.median(r["cpu"] for r in found["folders", part])
            lines.append(f"| {part}, {what} | {wall:.2f} | {cpu:.2f} | {ratio:.2f} | {memory:.0f} |")
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.split(":")[1].strip() for line in f if "model name" in line), platform.machine())
    text = (
        f"# Archives, {datetime.date.today()}\n\n"
        f"`python -m benchmarks.archives --images {args.images} --rounds {args.rounds}` on {os.cpu_count()} cores of "
        f"{model}, one worker, load average at the end {os.getloadavg()[0]:.1f}; medians of {args.rounds} interleaved "
        f"rounds; {args.images:,} + {VAL:,} generated JPEGs of 96 x 72 pixels in {CLASSES:,} classes; files in the "
        "page cache. All layouts gave the same listing and content hashes.\n\n" + "\n".join(lines) + "\n"
    )
    print(text)
    if args.out:
        (args.out / f"archives-{datetime.date.today()}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
