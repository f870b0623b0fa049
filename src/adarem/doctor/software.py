"""Is installed what training needs: Python and its packages, torch with its GPUs, FFCV, a compiler?"""

import ctypes.util
import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from adarem import native
from adarem.dependencies import Requirement, install_command, requirements
from adarem.doctor.check import Check, run_isolated, split_fix
from adarem.run.config import ClusterConfig

OPTIONAL = ("wandb", "wandb_workspaces")  # modules without which everything else works


def python() -> Check:
    """Whether Python is as new as adarem's metadata ask for."""
    version = ".".join(map(str, sys.version_info[:3]))
    try:
        wanted = importlib.metadata.metadata("adarem")["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:  # the check of packages says so
        wanted = ">=3"
    oldest = wanted.removeprefix(">=")
    ok = sys.version_info >= tuple(map(int, oldest.split(".")))
    return Check("python", ok, f"{version} at {sys.executable}", f"install Python {oldest} or newer")


def packages(extras: Collection[str]) -> Check:
    """Every package that adarem asks for with these extras, at a version that it allows."""
    lines = requirements()
    if not lines:
        return Check(
            "packages", False, "adarem itself is not installed", "pip install 'adarem[harness]', or make setup"
        )
    lacking = {r: problem for r in lines if r.extra in (None, *extras) and (problem := _problem(r))}
    names = ",".join(e for e in extras if any(r.extra == e for r in lacking))
    fix = f"{install_command(names or None)}; in a checkout: make setup"
    return Check("packages", not lacking, "; ".join(lacking.values()) or f"all of {', '.join(extras)}", fix)


def _problem(r: Requirement) -> str:
    """What is wrong with the installed version; empty where nothing is."""
    if r.package.startswith("opencv-python") and importlib.util.find_spec("cv2"):  # one of four packages has it
        return ""
    version = r.installed()
    if version is None:
        return f"{r.package} not installed"
    return "" if _satisfies(version, r.versions) else f"{r.package} {version}, needs {r.versions}"


def _satisfies(version: str, wanted: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except Exception:  # missing, broken or shadowed: then only the package's presence is known
        return True
    return SpecifierSet(wanted).contains(version, prereleases=True)


def imports() -> Iterator[Check]:
    """Whether the installed packages can be imported, as the commands do; one line for each that cannot."""
    ok, line, fix = run_isolated("imports")
    if not ok:
        yield Check("imports", False, line, fix or "pip install --force-reinstall the package that it names")
        return
    problems: dict[str, str] = json.loads(line)
    for module, problem in problems.items():
        yield Check(module, None if module in OPTIONAL else False, *split_fix(problem.removeprefix(f"{module}: ")))
    if not problems:
        yield Check("imports", True, "every installed package can be imported")


@dataclass(frozen=True)
class TorchFacts:
    """What isolated_checks.check_torch finds."""

    version: str
    torchvision: str | None
    cuda: str | None  # version that torch was built for
    gpus: list[str]  # names
    gloo: bool
    nccl: bool


def torch(cluster: ClusterConfig | None) -> Iterator[Check]:
    """Checks torch, its GPUs and its communication, as ``cluster`` needs them; without one the CPU is enough."""
    ok, line, fix = run_isolated("torch")
    if not ok:
        fix = fix or "pip install --force-reinstall torch torchvision, as a pair of one index"
        yield Check("torch", False, line.removeprefix("torch: "), fix)
        return
    facts = TorchFacts(**json.loads(line))
    yield Check("torch", True, f"{facts.version}, torchvision {facts.torchvision or 'not installed'}")
    on_slurm = cluster is not None and cluster.name == "slurm"
    needed = cluster is not None and cluster.device == "cuda" and not on_slurm
    yield _gpu(facts, needed=needed, on_slurm=on_slurm, ranks=cluster.ranks_per_node if cluster else 1)
    backend, available = ("nccl", facts.nccl) if needed else ("gloo", facts.gloo)
    if not available:
        yield Check(backend, False, f"torch was built without {backend}", "pip install torch from its own index")
    elif backend == "gloo" or facts.gpus:
        ok, line, _ = run_isolated(backend)
        fix = "GLOO_SOCKET_IFNAME=lo" if backend == "gloo" else "rerun with NCCL_DEBUG=INFO for details"
        yield Check(backend, ok, line, fix)


def _gpu(facts: TorchFacts, *, needed: bool, on_slurm: bool, ranks: int) -> Check:
    driver, gpus = _driver(), facts.gpus
    not_ok = False if needed else None
    if needed and gpus and len(gpus) < ranks:
        fix = f"cluster.ranks_per_node={len(gpus)}"
        return Check("gpu", False, f"{len(gpus)} x {gpus[0]}, cluster.ranks_per_node={ranks}", fix)
    if gpus:
        return Check("gpu", True, f"{len(gpus)} x {gpus[0]}, driver {driver}, torch built for CUDA {facts.cuda}")
    if driver and facts.cuda:
        fix = f"a newer driver, or a torch built for an older CUDA: driver {driver} does not run CUDA {facts.cuda}"
        return Check("gpu", not_ok, "there is a driver, but torch sees no GPU", fix)
    if driver:
        return Check("gpu", not_ok, "torch was built without CUDA", "pip install a CUDA build of torch")
    where = "none here; the cluster's nodes have them" if on_slurm else "none"
    return Check("gpu", not_ok, where, "cluster.device=cpu" if needed else "")


def _driver() -> str | None:
    """The version of NVIDIA's driver, if there is one."""
    if shutil.which("nvidia-smi") is None:
        return None
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(ask, capture_output=True, encoding="utf-8", errors="replace")
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else None


def turbojpeg(needed: bool) -> Check:
    """Whether libturbojpeg, which FFCV decodes with, is installed."""
    library = ctypes.util.find_library("turbojpeg")
    fix = "apt-get install libturbojpeg0-dev libopencv-dev pkg-config g++, or conda env create -f environment.yml"
    in_conda = next(Path(sys.prefix, "lib").glob("libturbojpeg.so*"), None)
    found = library or in_conda
    return Check("turbojpeg", True if found else False if needed else None, str(found or "no libturbojpeg"), fix)


def ffcv(needed: bool) -> Check:
    """Whether FFCV writes and reads images on this machine."""
    ok, line, fix = run_isolated("ffcv")
    fix = (
        fix or "pip install 'adarem[ffcv]' builds it, as does make setup in a checkout; or data.backend=folder, slower"
    )
    return Check("ffcv", ok if needed or ok else None, line, fix)


def compiler() -> Check:
    """Whether there is a C++ compiler."""
    fix = "apt-get install g++; without it ffcv cannot be built and AdaRem takes its slower path on the CPU"
    try:
        return Check("compiler", True, shlex.join(native.find_compiler("CXX", ("c++", "g++", "clang++"), "g++")), fix)
    except native.NoLibrary as e:
        return Check("compiler", None, str(e).partition(";")[0], fix)
