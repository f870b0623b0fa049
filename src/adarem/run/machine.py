"""What this machine is: the processor's and the GPUs' names, by files of the kernel and the driver. No torch."""

import os
import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor as /proc/cpuinfo names it, else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def gpu_names(driver: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """The model of each GPU that NVIDIA's driver knows, in order of their bus addresses; empty without a driver."""
    found = []
    for file in sorted(driver.glob("*/information")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Model:"):
                found.append(line.partition(":")[2].strip())
    return found


def gpus_to_use() -> int:
    """How many GPUs a process may use: those of CUDA_VISIBLE_DEVICES where that is set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return len(gpu_names())
    words = [word.strip() for word in visible.split(",")]
    return next((i for i, word in enumerate(words) if not word or word.startswith("-")), len(words))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def available_memory() -> int:
    """Bytes that processes may still take: of the machine, or of the control group where that has less."""
    with open("/proc/meminfo", encoding="utf-8") as f:
        free = next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable"))
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="utf-8").strip()
        used = int((group / "memory.current").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))
