"""`adarem doctor`: what this machine has and what it lacks, with the fix for each failure.

Without a config it checks what the rehearsal on this machine needs; with one, what that config needs. Nothing is
left behind. What may crash, hang or take seconds runs in a process of its own (adarem.probes).
"""

import ctypes.util
import importlib.metadata
import importlib.util
import json
import netrc
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adarem import exitcodes, slurm
from adarem.config import ClusterConfig, RunConfig, TextConfig
from adarem.data import fingerprint
from adarem.data.text import read_corpus
from adarem.errors import UserError

PROBE_SECONDS = 240  # a first FFCV read compiles; on a busy machine that takes a minute
MIN_DISK_GB = 2.0  # checkpoints of one campaign of small networks
MIN_SHM_MB = 128  # a container's usual 64 MB is too little for NCCL's and the loaders' buffers
OPTIONAL = ("wandb",)  # training never needs it


@dataclass(frozen=True)
class Check:
    """One line: ``ok`` True is ✓, False is ✗ and fails the doctor, None is –, worth knowing but not needed."""

    name: str
    ok: bool | None
    found: str
    fix: str = ""

    def __str__(self) -> str:
        mark = {True: "✓", False: "✗", None: "–"}[self.ok]
        line = f"{mark} {self.name:<14} {self.found}"
        return line + (f"\n  {'':<14} fix: {self.fix}" if self.fix and self.ok is not True else "")


def doctor(config: RunConfig | None) -> int:
    """Prints every check and returns exitcodes.OK, or FAILED when something that is needed is missing."""
    failed = 0
    for check in checks(config):
        print(check, flush=True)
        failed += check.ok is False
    print(f"{failed} problems" if failed else "nothing is missing")
    return exitcodes.FAILED if failed else exitcodes.OK


def checks(config: RunConfig | None) -> Iterator[Check]:
    """All checks, one after another as they are made; slow ones take seconds."""
    on_slurm = config is not None and config.cluster.name == "slurm"
    device = config.cluster.device if config else "cpu"
    yield _python()
    yield from _packages()
    yield from _torch(device, on_slurm, config.cluster.ranks_per_node if config else 1)
    yield _turbojpeg()
    yield _ffcv(needed=config is None or getattr(config.data, "backend", None) == "ffcv")
    yield _compiler()
    yield _hostname()
    if config is not None and not on_slurm:
        yield _cores(config.cluster)
    yield _disk()
    yield _shm()
    yield from _slurm(config)
    yield _wandb(config)
    if config is not None:
        yield _dataset(config)


def _probe(name: str) -> tuple[bool, str]:
    """Whether the probe went well, and its last line."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "adarem.probes", name], capture_output=True, text=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {PROBE_SECONDS} s"
    if done.returncode < 0:
        return False, f"crashed with signal {-done.returncode}"
    words = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, words[-1] if words else f"exit code {done.returncode}"


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(
        "python", sys.version_info >= (3, 10), f"{version} at {sys.executable}", "install Python 3.10 or newer"
    )


def _packages() -> Iterator[Check]:
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


def _torch(device: str, on_slurm: bool, ranks: int) -> Iterator[Check]:
    ok, line = _probe("torch")
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
        ok, line = _probe(backend)
        yield Check(backend, ok, line, "GLOO_SOCKET_IFNAME=lo" if backend == "gloo" else "NCCL_DEBUG=INFO tells more")


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(ask, capture_output=True, text=True)
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else None


def _turbojpeg() -> Check:
    library = ctypes.util.find_library("turbojpeg")
    fix = "apt-get install libturbojpeg0-dev libopencv-dev pkg-config g++, or conda env create -f environment.yml"
    in_conda = next(Path(sys.prefix, "lib").glob("libturbojpeg.so*"), None)
    return Check("turbojpeg", bool(library or in_conda), str(library or in_conda or "no libturbojpeg"), fix)


def _ffcv(needed: bool) -> Check:
    ok, line = _probe("ffcv")
    fix = "make setup builds it; or data.backend=folder, which reads the images without FFCV, slowly"
    return Check("ffcv", ok if needed or ok else None, line, fix)


def _compiler() -> Check:
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    fix = "apt-get install g++; without it ffcv cannot be built and AdaRem takes its slower path on the CPU"
    return Check("compiler", True if found else None, found or "no C++ compiler", fix)


def _hostname() -> Check:
    name = socket.gethostname()
    try:
        return Check("host name", True, f"{name} is {socket.gethostbyname(name)}")
    except OSError:
        return Check("host name", False, f"{name} does not resolve", f"echo '127.0.0.1 {name}' >> /etc/hosts, as root")


def _cores(cluster: ClusterConfig) -> Check:
    here, asked = len(os.sched_getaffinity(0)), cluster.ranks_per_node * cluster.cpus_per_rank
    found = f"{here}, the config uses {cluster.ranks_per_node} ranks x {cluster.cpus_per_rank}"
    return Check("cores", True if here >= asked else None, found, "fewer cluster.ranks_per_node, or it will be slow")


def _disk() -> Check:
    try:
        with tempfile.TemporaryFile(dir="."):
            free = shutil.disk_usage(".").free / 1e9
    except OSError as e:
        return Check("disk", False, f"{Path.cwd()}: {e.strerror}", "go to a folder that you may write to")
    fix = f"needs {MIN_DISK_GB:g} GB for checkpoints; clear up, or runs_dir=/another/disk/runs"
    return Check("disk", free >= MIN_DISK_GB, f"{free:.1f} GB free in {Path.cwd()}", fix)


def _shm() -> Check:
    try:
        free = shutil.disk_usage("/dev/shm").free / 1e6
    except OSError as e:
        return Check("/dev/shm", False, f"{e.strerror}", "mount -t tmpfs tmpfs /dev/shm, as root")
    fix = f"needs {MIN_SHM_MB} MB; docker run --shm-size=8g, or mount -o remount,size=8g /dev/shm as root"
    return Check("/dev/shm", free >= MIN_SHM_MB, f"{free:.0f} MB free", fix)


def _slurm(config: RunConfig | None) -> Iterator[Check]:
    needed = config is not None and config.cluster.name == "slurm"
    lacking = [c for c in ("sbatch", "srun", "squeue", "scontrol") if shutil.which(c) is None]
    if lacking:
        fix = "log in to the cluster; or cluster=local" if needed else ""
        yield Check("slurm", False if needed else None, f"no {', '.join(lacking)} on PATH", fix)
        return
    asked = _ask(["sinfo", "--noheader", "--format=%R"])
    if isinstance(asked, Check):
        yield asked if needed else Check("slurm", None, asked.found)
        return
    partitions = sorted(set(asked.split()))
    partition = config.cluster.partition if config else None
    if needed and partition and not set(partition.split(",")) <= set(partitions):
        found = f"no partition {partition}; there are {', '.join(partitions)}"
        yield Check("slurm", False, found, f"cluster.partition={partitions[0] if partitions else '...'}")
        return
    yield Check("slurm", True, f"answers; partitions {', '.join(partitions)}")
    if config is not None and needed:
        # Slurm itself says whether it would take such a job: account, limits, GPUs, everything that the site checks.
        with tempfile.TemporaryDirectory() as place:
            command = slurm.array_command(Path(place), "test", 1, config.cluster, None)
            command[command.index("--parsable")] = "--test-only"
            asked = _ask(command)
        job = f"{config.cluster.nodes} nodes x {config.cluster.ranks_per_node} ranks"
        if isinstance(asked, Check):
            yield Check(
                "slurm job", False, f"{job}: {asked.found}", "cluster.nodes, cluster.time, cluster.account, ..."
            )
        else:
            yield Check("slurm job", True, f"{job} would be taken")


def _ask(command: list[str]) -> "str | Check":
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return Check("slurm", False, f"{command[0]} does not answer within 60 s", "ask whether slurmctld runs")
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return Check("slurm", False, words[-1], "ask whether slurmctld runs, or set SLURM_CONF")
    return done.stdout


def _wandb(config: RunConfig | None) -> Check:
    mode = config.wandb.mode if config else "auto"
    if mode == "disabled":
        return Check("wandb", True, "switched off by the config")
    key = bool(os.environ.get("WANDB_API_KEY"))
    if not key:
        try:
            key = any("wandb" in host for host in netrc.netrc().hosts)
        except (OSError, netrc.NetrcParseError):
            key = False
    if key:
        return Check(
            "wandb", True, "there is a key" + (", runs stay offline by the config" if mode == "offline" else "")
        )
    fix = "wandb login, where runs shall be uploaded; offline ones are read with wandb leet"
    return Check("wandb", False if mode == "online" else None, "no key: runs are recorded offline", fix)


def _dataset(config: RunConfig) -> Check:
    data = config.data
    if isinstance(data, TextConfig):
        return _text(data)
    try:
        found = {}
        for split in fingerprint.SPLITS:
            found[split] = fingerprint.read_fingerprint(data, split)["num_images"]
            if data.backend == "ffcv":
                fingerprint.open_beton(data, split)
        return Check("data", True, f"{data.label}: {found['train']:,} + {found['val']:,} images, prepared")
    except UserError as e:
        missing = str(e)
    if data.embedded:
        return Check("data", True, f"{data.label}, made by `adarem launch`")
    for split in fingerprint.SPLITS:
        folder = Path(data.root) / split
        classes = sum(p.is_dir() for p in folder.iterdir()) if folder.is_dir() else 0
        if classes != data.num_classes:
            found_here = f"{classes} class folders" if folder.is_dir() else "no such folder"
            fix = f"data.root=... with train/<class>/* and val/<class>/* of {data.num_classes} classes"
            return Check("data", False, f"{folder}: {found_here}", fix)
    if not any((Path(data.beton_dir) / f"{s}.beton").exists() for s in fingerprint.SPLITS):
        return Check("data", True, f"{data.root} is there; `adarem launch` writes the .beton files first")
    return Check("data", False, missing, "adarem prepare, with the same settings")


def _text(data: TextConfig) -> Check:
    try:
        found = read_corpus(data).fingerprint
    except UserError as e:
        if data.embedded:
            return Check("data", True, f"{data.label}, made by `adarem launch`")
        return Check("data", False, str(e), f"data.root=... with the files of {data.label}")
    return Check("data", True, f"{data.label}: {found['train']['num_tokens']:,} tokens for training")
