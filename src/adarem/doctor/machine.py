"""Has this machine a name that resolves, cores, disk and shared memory enough?"""

import os
import shutil
import socket
import tempfile
from pathlib import Path

from adarem.doctor.check import Check
from adarem.run.config import ClusterConfig

MIN_DISK_GB = 2.0  # checkpoints of one sweep of small networks
MIN_SHM_MB = 128  # a container's usual 64 MB is too little for NCCL's and the loaders' buffers


def hostname() -> Check:
    """Whether this machine's name resolves, which torch.distributed needs."""
    name = socket.gethostname()
    try:
        return Check("host name", True, f"{name} is {socket.gethostbyname(name)}")
    except OSError:
        return Check("host name", False, f"{name} does not resolve", f"echo '127.0.0.1 {name}' >> /etc/hosts, as root")


def cores(cluster: ClusterConfig) -> Check:
    """Whether there are as many cores as the config uses."""
    here, asked = len(os.sched_getaffinity(0)), cluster.ranks_per_node * cluster.cpus_per_rank
    found = f"{here}, the config uses {cluster.ranks_per_node} ranks x {cluster.cpus_per_rank}"
    return Check("cores", True if here >= asked else None, found, "fewer cluster.ranks_per_node, or it will be slow")


def disk() -> Check:
    """Whether this folder has space for checkpoints."""
    try:
        with tempfile.TemporaryFile(dir="."):
            free = shutil.disk_usage(".").free / 1e9
    except OSError as e:
        return Check("disk", False, f"{Path.cwd()}: {e.strerror}", "go to a folder that you may write to")
    fix = f"needs {MIN_DISK_GB:g} GB for checkpoints; clear up, or runs_dir=/another/disk/runs"
    return Check("disk", free >= MIN_DISK_GB, f"{free:.1f} GB free in {Path.cwd()}", fix)


def shm() -> Check:
    """Whether /dev/shm is large enough."""
    try:
        free = shutil.disk_usage("/dev/shm").free / 1e6
    except OSError as e:
        return Check("/dev/shm", False, f"{e.strerror}", "mount -t tmpfs tmpfs /dev/shm, as root")
    fix = f"needs {MIN_SHM_MB} MB; docker run --shm-size=8g, or mount -o remount,size=8g /dev/shm as root"
    return Check("/dev/shm", free >= MIN_SHM_MB, f"{free:.0f} MB free", fix)
