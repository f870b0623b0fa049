"""Is installed what training needs: Python and its packages, torch with its GPUs, FFCV, a compiler?"""

import ctypes.util
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from adarem.doctor.check import Check, probe

OPTIONAL = ("wandb",)  # training never needs it


def python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(
        "python", sys.version_info >= (3, 10), f"{version} at {sys.executable}", "install Python 3.10 or newer"
    )


def packages() -> Iterator[Check]:
    """Every package that pyproject.toml asks for, at a version that it allows."""
    try:
        lines = importlib.metadata.requires("adarem") or []
    except importlib.metadata.PackageNotFoundError:
        yield Check(
            "packages", False, "adarem itself is not installed", "make setup, or pip install -e '.[harness,ffcv]'"
        )
        return
    lacking, optional = [], []
    for line in lines:
        extra = re.search(r"""extra == ['"](\w+)['"]""", line)
        if extra and extra[1] not in ("harness", "ffcv"):
            continue
        name, wanted = re.match(r"([A-Za-z0-9_.-]+)\s*\(?([^;)]*)", line).groups()  # type: ignore[union-attr]
        if name.startswith("opencv-python") and importlib.util.find_spec("cv2"):  # one of four packages has it
            continue
        try:
            version = importlib.metadata.version(name)
            problem = "" if _satisfies(version, wanted.strip()) else f"{name} {version}, needs {wanted.strip()}"
        except importlib.metadata.PackageNotFoundError:
            problem = f"{name} not installed"
        if problem:
            (optional if name in OPTIONAL else lacking).append(problem)
    fix = "make setup, or pip install -c constraints.txt -e '.[harness,ffcv]'"
    yield Check("packages", not lacking, "; ".join(lacking) or "all that pyproject.toml asks for", fix)
    for problem in optional:
        yield Check("packages", None, problem, fix)


def _satisfies(version: str, wanted: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # then only its presence is known
        return True
    return SpecifierSet(wanted).contains(version, prereleases=True)


def torch(device: str, on_slurm: bool, ranks: int) -> Iterator[Check]:
    ok, line = probe("torch")
    if not ok:
        yield Check("torch", False, line, "pip install -c constraints.txt torch torchvision, as a pair of one index")
        return
    found = json.loads(line)
    yield Check("torch", True, f"{found['version']}, torchvision {found['torchvision']}")
    driver = _driver()
    gpus, needed = found["gpus"], device == "cuda" and not on_slurm
    if needed and len(gpus) < ranks and gpus:
        fix = f"cluster.ranks_per_node={len(gpus)}"
        yield Check("gpu", False, f"{len(gpus)} x {gpus[0]}, cluster.ranks_per_node={ranks}", fix)
    elif gpus:
        yield Check("gpu", True, f"{len(gpus)} x {gpus[0]}, driver {driver}, torch built for CUDA {found['cuda']}")
    elif driver and found["cuda"]:
        fix = f"a newer driver, or a torch built for an older CUDA: driver {driver} does not run CUDA {found['cuda']}"
        yield Check("gpu", False if needed else None, "there is a driver, but torch sees no GPU", fix)
    elif driver:
        yield Check(
            "gpu", False if needed else None, "torch was built without CUDA", "pip install a CUDA build of torch"
        )
    else:
        where = "none here; the cluster's nodes have them" if on_slurm else "none"
        yield Check("gpu", False if needed else None, where, "cluster.device=cpu" if needed else "")
    backend = "nccl" if device == "cuda" and not on_slurm else "gloo"
    if not found[backend]:
        yield Check(backend, False, f"torch was built without {backend}", "pip install torch from its own index")
    elif backend == "gloo" or gpus:
        ok, line = probe(backend)
        yield Check(backend, ok, line, "GLOO_SOCKET_IFNAME=lo" if backend == "gloo" else "NCCL_DEBUG=INFO tells more")


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(ask, capture_output=True, text=True)
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else None


def turbojpeg() -> Check:
    library = ctypes.util.find_library("turbojpeg")
    fix = "apt-get install libturbojpeg0-dev libopencv-dev pkg-config g++, or conda env create -f environment.yml"
    in_conda = next(Path(sys.prefix, "lib").glob("libturbojpeg.so*"), None)
    return Check("turbojpeg", bool(library or in_conda), str(library or in_conda or "no libturbojpeg"), fix)


def ffcv(needed: bool) -> Check:
    ok, line = probe("ffcv")
    fix = "make setup builds it; or data.backend=folder, which reads the images without FFCV, slowly"
    return Check("ffcv", ok if needed or ok else None, line, fix)


def compiler() -> Check:
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    fix = "apt-get install g++; without it ffcv cannot be built and AdaRem takes its slower path on the CPU"
    return Check("compiler", True if found else None, found or "no C++ compiler", fix)
