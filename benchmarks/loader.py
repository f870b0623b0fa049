"""How fast training images come, on one machine, next to the usual loaders: one table.

    python -m benchmarks.loader --work /tmp/loader --out benchmarks/results

Each measurement is a process of its own: it opens a loader over the same generated photographs (ImageNet-like sizes,
about 500 x 375 pixels and 110 kB), reads one epoch to warm up and measures the next. Rounds are interleaved: all
loaders once, then all again, in another order. "stored" rows read the same JPEG bytes that the jpg .beton holds
(re-encoded at quality 90), "original" rows the files that it was made from. Rates are images per second of wall time
and, because other work on the machine disturbs those, per second of CPU time (workers included).
"""

import argparse
import datetime
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:  # each measured process imports what its loader needs, and nothing else
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from adarem.run.config import DataConfig

SIZE, BATCH, CLASSES = 224, 64, 20
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
Mode = Literal["raw", "proportion", "jpg"]
MODES: tuple[Mode, ...] = ("raw", "proportion", "jpg")


def config(work: Path, mode: Mode, workers: int) -> "DataConfig":
    """ImageNet's settings over the generated photographs, stored in ``work / mode``."""
    from adarem.run.config import DataConfig, WriteConfig

    return DataConfig(
        name="generated",
        label="generated",
        root=str(work / "original"),
        beton_dir=str(work / mode),
        backend="ffcv",
        embedded=False,
        num_classes=CLASSES,
        expected_train=None,
        expected_val=None,
        train_crop=SIZE,
        crop_area=AREA,
        crop_aspect=ASPECT,
        flip=0.5,
        eval_resize=256,
        eval_crop=SIZE,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        workers=workers,
        write=WriteConfig(mode, 500, 90, 0.5),
    )


def make_data(work: Path, images: int) -> None:
    """original/: the generated tree; raw/, proportion/, jpg/: .beton files; stored/: the jpg file's bytes as files."""
    from tests.support.imagenet_tree import make_imagenet_tree

    from adarem.data import fingerprint
    from adarem.data.ffcv.beton import open_index
    from adarem.data.prepare import prepare

    if not (work / "original").exists():
        make_imagenet_tree(work / "original", CLASSES, images // CLASSES, 1, distinct=min(images, 400), oddities=False)
    for mode in MODES:
        prepare(config(work, mode, 1), workers=os.cpu_count() or 1)
    if not (work / "stored").exists():
        data = config(work, "jpg", 1)
        index = open_index(fingerprint.beton_path(data, "train"))
        with open(index.path, "rb") as f:
            for name, start, size in zip(
                fingerprint.files_path(data, "train").read_text(encoding="utf-8").splitlines(),
                index.starts,
                index.sizes,
                strict=True,
            ):
                path = work / "stored" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(os.pread(f.fileno(), int(size), int(start)))


# What measures one loader: each call runs one epoch, and yields the number of images of each batch.
Epochs = Callable[[], Iterator[int]]


def ours(work: Path, mode: Any, workers: int) -> Epochs:
    from adarem.data.loaders import open_train

    loader = open_train(
        config(work, mode, workers), global_batch_size=BATCH, seed=0, rank=0, world_size=1, device="cpu"
    )
    count = iter(range(100))

    def epoch() -> Iterator[int]:
        for images, _ in loader.epoch(next(count)):
            yield len(images)

    return epoch


def stock(work: Path, mode: str, workers: int) -> Epochs:
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

    loader = Loader(
        str(work / mode / "train.beton"),
        batch_size=BATCH,
        num_workers=workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        seed=0,
        pipelines={
            "image": [
                RandomResizedCropRGBImageDecoder((SIZE, SIZE), AREA, ASPECT),
                RandomHorizontalFlip(),
                ToTensor(),
                ToTorchImage(),
            ],
            "label": [IntDecoder(), ToTensor(), Squeeze(1)],
        },
    )

    def epoch() -> Iterator[int]:
        for images, _ in loader:
            yield len(images)

    return epoch


def _torch_loader(dataset: "torch.utils.data.Dataset[Any]", workers: int) -> Epochs:
    import torch

    loader = torch.utils.data.DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True
    )

    def epoch() -> Iterator[int]:
        for images, _ in loader:
            yield len(images)

    return epoch


def folder_pil(work: Path, kind: str, workers: int) -> Epochs:
    from torchvision import datasets, transforms

    view = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, AREA, ASPECT),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        ]
    )
    return _torch_loader(datasets.ImageFolder(work / kind / "train", view), workers)


def folder_decode_jpeg(work: Path, kind: str, workers: int) -> Epochs:
    from torchvision import datasets, io
    from torchvision.transforms import v2

    view = v2.Compose([v2.RandomResizedCrop(SIZE, AREA, ASPECT, antialias=True), v2.RandomHorizontalFlip()])

    def load(path: str) -> "torch.Tensor":
        return io.decode_jpeg(io.read_file(path), io.ImageReadMode.RGB)

    return _torch_loader(datasets.ImageFolder(work / kind / "train", view, loader=load), workers)


def timm_loader(work: Path, kind: str, workers: int) -> Epochs:
    """timm's own: normalised float32 comes out, as it always does on the CPU."""
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(work / kind / "train"), is_training=True)
    loader = create_loader(
        dataset,
        (3, SIZE, SIZE),
        BATCH,
        is_training=True,
        use_prefetcher=False,
        scale=AREA,
        ratio=ASPECT,
        num_workers=workers,
        persistent_workers=True,
    )

    def epoch() -> Iterator[int]:
        for images, _ in loader:
            yield len(images)

    return epoch


def dali(work: Path, kind: str, workers: int) -> Epochs:
    sys.path += os.environ.get("DALI_PATH", "").split()  # where DALI is, if not in this environment
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=workers, device_id=None, seed=0)
    def pipe() -> Any:
        files, labels = fn.readers.file(file_root=str(work / kind / "train"), random_shuffle=True, name="files")
        images = fn.decoders.image_random_crop(
            files, device="cpu", random_area=list(AREA), random_aspect_ratio=list(ASPECT)
        )
        images = fn.resize(images, size=[SIZE, SIZE], interp_type=types.INTERP_TRIANGULAR)
        return fn.flip(images, horizontal=fn.random.coin_flip(probability=0.5)), labels

    built = pipe()
    built.build()
    batches = built.epoch_size("files") // BATCH

    def epoch() -> Iterator[int]:
        for _ in range(batches):
            images, _ = built.run()
            yield len(images)

    return epoch


def bare_decode(work: Path, kind: str, workers: int) -> Epochs:
    """The limit of a full decode: libjpeg-turbo alone, from memory, no crop, no resize."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    from ffcv.libffcv import imdecode
    from PIL import Image

    files = sorted((work / kind / "train").glob("*/*"))
    loaded = [(np.frombuffer(p.read_bytes(), np.uint8), Image.open(p).size) for p in files]
    pool = ThreadPoolExecutor(workers)

    def decode(part: "list[tuple[NDArray[np.uint8], tuple[int, int]]]") -> int:
        out = np.empty(3 * max(w * h for _, (w, h) in loaded), np.uint8)
        for data, (w, h) in part:
            imdecode(data, out, h, w, h, w, 0, 0, 1, 1, False, False)  # ctypes releases the GIL
        return len(part)

    def epoch() -> Iterator[int]:
        yield from pool.map(decode, [loaded[i : i + BATCH] for i in range(0, len(loaded), BATCH)])

    return epoch


class Measured(NamedTuple):
    """A loader of the table."""

    open: Callable[[Path, str, int], Epochs]  # of the work folder, a kind of data and the number of workers
    kind: str  # folder of the data in the work folder
    reads: str  # as the table says it


LOADERS: dict[str, Measured] = {
    "adarem raw": Measured(ours, "raw", "raw .beton"),
    "adarem proportion 0.5": Measured(ours, "proportion", "half raw, half JPEG .beton"),
    "adarem jpg": Measured(ours, "jpg", "stored JPEG .beton"),
    "stock FFCV raw": Measured(stock, "raw", "raw .beton"),
    "stock FFCV proportion 0.5": Measured(stock, "proportion", "half raw, half JPEG .beton"),
    "stock FFCV jpg": Measured(stock, "jpg", "stored JPEG .beton"),
    "torchvision folder, PIL": Measured(folder_pil, "original", "original JPEG"),
    "torchvision folder, PIL (stored)": Measured(folder_pil, "stored", "stored JPEG"),
    "torchvision decode_jpeg": Measured(folder_decode_jpeg, "original", "original JPEG"),
    "torchvision decode_jpeg (stored)": Measured(folder_decode_jpeg, "stored", "stored JPEG"),
    "timm create_loader (stored)": Measured(timm_loader, "stored", "stored JPEG"),
    "DALI, CPU (stored)": Measured(dali, "stored", "stored JPEG"),
    "bare decode (stored)": Measured(bare_decode, "stored", "stored JPEG"),
}


def cpu_seconds() -> float:
    """Of this process; and of its children, which a loader's workers are, once they have ended."""
    return sum(
        u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def live_children_seconds() -> float:
    """CPU time of this process's children that run."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def measure(name: str, work: Path, workers: int, started: float) -> dict[str, float]:
    """Rates of one loader in this process; ``started`` is when the process was, in seconds since 1970."""
    epoch = LOADERS[name].open(work, LOADERS[name].kind, workers)
    batches = epoch()
    next(batches)
    first = time.time() - started
    for _ in batches:
        pass
    images, wall, cpu = 0, time.perf_counter(), cpu_seconds() + live_children_seconds()
    while time.perf_counter() - wall < 2:
        for n in epoch():
            images += n
    seconds = time.perf_counter() - wall
    cpu = cpu_seconds() + live_children_seconds() - cpu
    return {"per_second": images / seconds, "per_cpu_second": images / cpu, "first_batch": first}


def run_one(name: str, work: Path, workers: int) -> dict[str, float] | str:
    """The rates of one loader, measured in a process of its own; or why there are none."""
    command = [sys.executable, "-m", "benchmarks.loader", "--one", name, "--work", str(work), "--workers", str(workers)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command += ["--started", str(time.time())]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=180, env=environment
        )
    except subprocess.TimeoutExpired:
        return "no answer in 180 s"
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["?"])[-1]
    found: dict[str, float] = json.loads(lines[-1])
    return found


def table(results: dict[tuple[str, int], list[dict[str, float]]], failed: dict[str, str], workers: list[int]) -> str:
    def median(name: str, w: int, key: str) -> float | None:
        found = results.get((name, w))
        return statistics.median(r[key] for r in found) if found else None

    def spread(name: str, w: int) -> str:
        found = results.get((name, w))
        if not found:
            return "—"
        values = sorted(r["per_second"] for r in found)
        return f"{statistics.median(values):.0f} ({values[0]:.0f}–{values[-1]:.0f})"

    head = ["loader", "reads"]
    for w in workers:
        head += [f"images/s, {w} worker{'s' if w > 1 else ''}", f"per CPU s, {w} w", f"first batch s, {w} w"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, (_, _, reads) in LOADERS.items():
        if name in failed:
            lines.append(f"| {name} | not measured: {failed[name]} |" + " |" * (len(head) - 2))
            continue
        row = [name, reads]
        for w in workers:
            cpu, first = median(name, w, "per_cpu_second"), median(name, w, "first_batch")
            row += [spread(name, w), f"{cpu:.0f}" if cpu else "—", f"{first:.1f}" if first else "—"]
        lines.append("| " + " | ".join(row) + " |")
    lines += ["", "| ratio | target | " + " | ".join(f"wall, {w} w | CPU, {w} w" for w in workers) + " |"]
    lines.append("| --- | --- |" + " --- | --- |" * len(workers))
    for ours_name, peer, target in [
        ("adarem raw", "stock FFCV raw", "1.25"),
        ("adarem raw", "torchvision folder, PIL", "4"),
        ("adarem proportion 0.5", "stock FFCV proportion 0.5", "—"),
        ("adarem jpg", "stock FFCV jpg", "1.25"),
        ("adarem jpg", "torchvision decode_jpeg (stored)", "1.1"),
        ("adarem jpg", "DALI, CPU (stored)", "1.1"),
        ("adarem jpg", "torchvision folder, PIL (stored)", "1.6"),
        ("adarem jpg", "timm create_loader (stored)", "—"),
        ("adarem jpg", "bare decode (stored)", "0.7"),
    ]:
        row = [f"{ours_name} / {peer}", target]
        for w in workers:
            for key in ("per_second", "per_cpu_second"):
                a, b = median(ours_name, w, key), median(peer, w, key)
                row.append(f"{a / b:.2f}" if a and b else "—")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the generated data; kept and reused")
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=60, help="start nothing more after that")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--out", type=Path, help="folder for loader-DATE.md; without it the table is only printed")
    parser.add_argument("--one", choices=LOADERS, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.work, args.workers[0], args.started)), flush=True)
        os._exit(0)  # stock FFCV's threads may not end
    make_data(args.work, args.images)
    results: dict[tuple[str, int], list[dict[str, float]]] = {}
    failed: dict[str, str] = {}
    deadline = time.time() + 60 * args.minutes
    for number in range(args.rounds):
        todo = [(name, w) for name in args.only for w in args.workers]
        random.Random(number).shuffle(todo)
        for name, w in todo:
            if name in failed or time.time() > deadline:
                continue
            found = run_one(name, args.work, w)
            if isinstance(found, str):
                failed[name] = found
            else:
                results.setdefault((name, w), []).append(found)
            print(f"round {number + 1}: {name}, {w} workers: {found}", file=sys.stderr, flush=True)
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.split(":")[1].strip() for line in f if "model name" in line), platform.machine())
    text = (
        f"# Loader, {datetime.date.today()}\n\n"
        f"`python -m benchmarks.loader --work DIR --images {args.images} --rounds {args.rounds} --workers "
        f"{' '.join(map(str, args.workers))} --minutes {args.minutes:g}` on {os.cpu_count()} cores of {model}, no GPU, "
        "load average at the end "
        f"{os.getloadavg()[0]:.1f}; medians of up to {args.rounds} interleaved rounds (smallest–largest); "
        f"{args.images} generated JPEGs, batch {BATCH}, {SIZE} px random resized crop and flip, files in the "
        "page cache.\n\n" + table(results, failed, args.workers) + "\n"
    )
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"loader-{datetime.date.today()}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
