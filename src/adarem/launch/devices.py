"""Which GPUs or cores of this machine a run gets. Launches share them: each is held by a lock while a run has it.

The kernel frees a lock with the last process that holds it, so nothing is left of a launch that is killed.
"""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adarem.run import locks
from adarem.run.errors import UserError
from adarem.run.files import writing

Kind = Literal["cpu", "cuda"]
_WORDS: Mapping[Kind, str] = {"cpu": "core", "cuda": "GPU"}


@dataclass(frozen=True)
class Device:
    name: str  # a core's number; a GPU as CUDA_VISIBLE_DEVICES names it
    key: str  # the same for every launch on this machine, whatever each of them may see


@dataclass(frozen=True)
class Lease:
    """Devices that one run has until ``release``, or until its processes have ended."""

    kind: Kind
    names: tuple[str, ...]
    descriptors: tuple[int, ...]  # of their locks; a process that inherits them holds them too

    def __str__(self) -> str:
        word = _WORDS[self.kind]
        return f"{word}{'s' if len(self.names) > 1 else ''} {', '.join(self.names)}"

    def release(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


@dataclass(frozen=True)
class DevicePool:
    """The GPUs or cores that this process may use."""

    kind: Kind
    devices: Sequence[Device]
    folder: Path  # of the locks

    def take(self, number: int) -> Lease | None:
        """So many free devices; None while fewer are free. A run that needs more cores than there are gets all."""
        if self.kind == "cpu":
            number = min(number, len(self.devices))
        names: list[str] = []
        descriptors: list[int] = []
        for device in self.devices:
            if len(names) == number:
                break
            descriptor = locks.try_hold(self.folder / f"{self.kind}-{device.key}.lock")
            if descriptor is not None:
                names.append(device.name)
                descriptors.append(descriptor)
        lease = Lease(self.kind, tuple(names), tuple(descriptors))
        if len(names) == number:
            return lease
        lease.release()
        return None

    def environment(self, lease: Lease) -> dict[str, str]:
        """What a run's environment says of its devices."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(lease.names)} if self.kind == "cuda" else {}

    def check(self, number: int) -> None:
        """Raises UserError where a run needs more GPUs than this process may use."""
        if self.kind == "cuda" and number > len(self.devices):
            raise UserError(
                f"cluster.ranks_per_node={number}: one GPU each, and {len(self.devices)} can be used here; lower it, "
                "or give cluster.device=cpu"
            )


def device_pool(kind: Kind) -> DevicePool:
    """The GPUs or cores that this process may use.

    Raises:
        UserError: the folder of the locks cannot be made, or another user owns it.
    """
    if kind == "cuda":
        devices = gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), _installed_gpus())
    else:
        devices = [Device(str(core), str(core)) for core in sorted(os.sched_getaffinity(0))]
    return DevicePool(kind, devices, _lock_folder())


def gpus(visible: str | None, installed: Mapping[str, str]) -> list[Device]:
    """The GPUs that a process may use.

    Args:
        visible: CUDA_VISIBLE_DEVICES; None: not set.
        installed: the number of each GPU of the machine, and its UUID.
    """
    if visible is None:
        return [Device(uuid, uuid) for uuid in installed.values()]
    found = []
    for word in (w.strip() for w in visible.split(",")):
        if not word or word.startswith("-"):  # as CUDA reads it: what follows is hidden
            break
        of_prefix = (uuid for uuid in installed.values() if uuid.startswith(word))
        key = installed.get(word) or next(of_prefix, word)
        found.append(Device(word, key.replace("/", "_")))
    return found


def _installed_gpus() -> dict[str, str]:
    """The number of each GPU, and its UUID; empty where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        out = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=60.0, check=True
        ).stdout
        pairs = (line.split(",") for line in out.splitlines() if "," in line)
        return {index.strip(): uuid.strip() for index, uuid in pairs}
    return {str(i): str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))}


def _lock_folder() -> Path:
    """$ADAREM_LOCKS, which several users may share; else a private one of this user and machine."""
    given = os.environ.get("ADAREM_LOCKS")
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"adarem-{os.getuid()}"
    with writing(folder, "give another in ADAREM_LOCKS"):
        folder.mkdir(mode=0o777 if given else 0o700, parents=True, exist_ok=True)
        owner = folder.lstat().st_uid
    if not given and (owner != os.getuid() or folder.is_symlink()):
        raise UserError(f"{folder}: a link, or another user's; give a folder of your own in ADAREM_LOCKS")
    return folder
