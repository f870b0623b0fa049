"""Timers and gauges of the training loop. None of them makes the host wait for the device."""

import math
import resource
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SHOW_EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class EpochTime:
    """What an epoch took so far, over all attempts."""

    seconds: float = 0.0
    waited_seconds: float = 0.0  # those of them without a batch
    count: int = 0  # images or tokens, over all ranks


class EpochTimer:
    """Times an epoch.

    Args:
        spent: in earlier attempts, where they were interrupted within the epoch.
    """

    def __init__(self, spent: EpochTime | None = None) -> None:
        self._began = self._shown = time.perf_counter()
        self._steps = 0  # of this attempt
        self._earlier = spent or EpochTime()
        self.waited_seconds, self._count = self._earlier.waited_seconds, self._earlier.count

    def waiting(self) -> "EpochTimer":
        """Around the request for a batch."""
        return self

    def __enter__(self) -> None:
        self._asked = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.waited_seconds += time.perf_counter() - self._asked
            self._steps += 1

    def add(self, count: int) -> None:
        """Counts the images or tokens of a batch, over all ranks."""
        self._count += count

    def due(self) -> bool:
        """Whether it is time to show progress again."""
        now = time.perf_counter()
        if now - self._shown < _SHOW_EVERY_SECONDS:
            return False
        self._shown = now
        return True

    def spent(self) -> EpochTime:
        return EpochTime(self.seconds(), self.waited_seconds, self._count)

    def seconds(self) -> float:
        return self._earlier.seconds + time.perf_counter() - self._began

    def rate(self) -> float:
        """Images or tokens per second."""
        return self._count / self.seconds()

    def seconds_per_step(self) -> float:
        """Of this attempt alone: earlier ones may have had another number of ranks."""
        return (self.seconds() - self._earlier.seconds) / max(self._steps, 1)


class AsyncLossReader:
    """Reads the running loss without a synchronisation: each step starts a copy, which is read once it has arrived.

    On the CPU there is nothing to wait for, and the reading is the newest; on CUDA it may be a few steps old.
    """

    def __init__(self, device: torch.device) -> None:
        self._event: Any = None
        if device.type == "cuda":
            self._buffer = torch.zeros(2, dtype=torch.float64, pin_memory=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch annotates no part of it
        self._pending = False
        self._on_cpu: tuple[Tensor, Tensor] | None = None  # read when it is asked for
        self._loss_sum, self._count = 0.0, 0.0

    def observe(self, loss_sum: Tensor, count: Tensor) -> None:
        """Takes an epoch's sum of losses and number of images (or tokens) so far, 0-dim tensors on the device."""
        if self._event is None:
            self._on_cpu = loss_sum, count
            return
        self._read()
        if self._pending:
            return
        self._buffer.copy_(torch.stack([loss_sum, count]), non_blocking=True)
        self._event.record()
        self._pending = True
        self._read()

    def _read(self) -> None:
        if self._on_cpu is not None:
            self._loss_sum, self._count = self._on_cpu[0].item(), self._on_cpu[1].item()
            self._on_cpu = None
        elif self._pending and self._event.query():
            self._loss_sum, self._count = self._buffer.tolist()
            self._pending = False

    def not_finite(self) -> bool:
        self._read()
        return not math.isfinite(self._loss_sum)

    def loss(self) -> float | None:
        """Mean loss of the epoch so far on this rank; None before the first reading."""
        self._read()
        return self._loss_sum / self._count if self._count else None


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory so far: of the GPU's allocator on CUDA, of the process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
