"""What `adarem doctor` tries out in a process of its own, since it may crash, hang or take seconds to import.

    python -m adarem.doctor.isolated_checks imports | torch | gloo | nccl | ffcv

A check prints one line that says what it found, or ends with the error.
"""

import importlib
import json
import sys
import tempfile
from pathlib import Path

from adarem.dependencies import import_problem, requirements
from adarem.doctor.check import EXPLAINED
from adarem.run import streams
from adarem.run.errors import UserError

_CHECKED_BY_THEMSELVES = ("torch", "torchvision", "ffcv", "numba")


def check_imports() -> str:
    """JSON of what is wrong with the installed packages that cannot be imported, by the module at fault."""
    problems = {}
    for r in requirements():
        if r.module and r.installed() and r.module not in _CHECKED_BY_THEMSELVES:
            print(r.module, flush=True)  # the last line, should the process crash
            try:
                importlib.import_module(r.module)
            except Exception as e:
                line = import_problem(e) or f"{r.module}: {_line(e)}; run `pip install --force-reinstall {r.package}`"
                problems[line.partition(":")[0]] = line
    for module in _CHECKED_BY_THEMSELVES:
        problems.pop(module, None)
    return json.dumps(problems)


def check_torch() -> str:
    """JSON of `software.TorchFacts`. Fails where torch or an installed torchvision cannot be imported."""
    import torch
    import torch.distributed

    torchvision = None
    try:
        torchvision = importlib.import_module("torchvision").__version__
    except ModuleNotFoundError as e:
        if e.name != "torchvision":
            raise

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.version.cuda else []
    return json.dumps(
        {
            "version": torch.__version__,
            "torchvision": torchvision,
            "cuda": torch.version.cuda,
            "gpus": gpus,
            "gloo": torch.distributed.is_gloo_available(),
            "nccl": torch.distributed.is_nccl_available(),
        }
    )


def _all_reduce(backend: str, device: str) -> str:
    import torch
    import torch.distributed as dist

    dist.init_process_group(backend, init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    value = torch.ones(2, device=device)
    dist.all_reduce(value)
    assert value.sum().item() == 2
    dist.destroy_process_group()
    return "all_reduce works with one rank"


def check_gloo() -> str:
    return _all_reduce("gloo", "cpu")


def check_nccl() -> str:
    return _all_reduce("nccl", "cuda")


def check_ffcv() -> str:
    """Writes four images with the project's own writer and reads two back through FFCV, pixel for pixel."""
    import numpy as np
    from PIL import Image

    from adarem.data.ffcv.library import VERSION  # raises UserError where it is another, or none
    from adarem.data.loaders import open_eval
    from adarem.data.prepare import prepare
    from adarem.run.config import DataConfig, WriteConfig

    side = 16
    with tempfile.TemporaryDirectory(prefix="adarem-doctor-") as place:
        for i, split in enumerate(("train", "val", "train", "val")):
            folder = Path(place) / split / f"class{i // 2}"
            folder.mkdir(parents=True)
            Image.new("RGB", (side, side), (40 * i, 200, 90)).save(folder / f"{i}.png")
        data = DataConfig(
            name="doctor", label="doctor", root=place, beton_dir=f"{place}/ffcv", backend="ffcv", embedded=False,
            num_classes=2, expected_train=None, expected_val=None, train_crop=side, crop_area=(1.0, 1.0),
            crop_aspect=(1.0, 1.0), flip=0.0, eval_resize=side, eval_crop=side, mean=(0.0,) * 3, std=(1.0,) * 3,
            workers=1, write=WriteConfig(mode="raw", max_side=side, jpeg_quality=90, compress_probability=0.0),
        )  # fmt: skip
        prepare(data, workers=1, progress=False)
        loader = open_eval(data, batch_size=2, rank=0, world_size=1, device="cpu")
        batches = [(images.numpy(), labels.tolist()) for _, images, labels in loader]
        loader.close()
    (images, labels) = batches[0]
    expected = np.broadcast_to(np.array([[40, 200, 90], [120, 200, 90]])[:, :, None, None], (2, 3, side, side))
    if labels != [0, 1] or not np.array_equal(images, expected):
        raise RuntimeError("what FFCV read is not what was written")
    return f"{VERSION}, writes and reads back exactly"


CHECKS = {
    "imports": check_imports, "torch": check_torch, "gloo": check_gloo, "nccl": check_nccl, "ffcv": check_ffcv,
}  # fmt: skip


def _line(error: Exception) -> str:
    """One line, which says what to do where it is known."""
    if problem := import_problem(error):
        return problem
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    streams.prepare()
    try:
        print(CHECKS[sys.argv[1]]())
    except Exception as e:
        print(_line(e), file=sys.stderr)
        sys.exit(EXPLAINED if isinstance(e, UserError) or import_problem(e) else 1)
