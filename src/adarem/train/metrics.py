"""Clocks and gauges of the training loop. None of them makes the host wait for the device."""

import math
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_SHOW_EVERY_SECONDS = 1.0


class EpochClock:
    """Times an epoch, with what earlier attempts kept of it.

    Args:
        spent: what ``spent()`` was when the epoch was left in the middle; empty at an epoch's beginning.
    """

    def __init__(self, spent: Sequence[float] = ()) -> None:
        self._began = self._shown = time.perf_counter()
        self._steps = 0  # of this attempt
        self._earlier, self.waited, self._count = spent or (0.0, 0.0, 0)  # waited: seconds without a batch

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the request for a batch."""
        begin = time.perf_counter()
        yield
        self.waited += time.perf_counter() - begin
        self._steps += 1

    def saw(self, count: int) -> None:
        """Images or tokens of a batch, over all ranks."""
        self._count += count

    def due(self) -> bool:
        """Whether it is time to show something again."""
        now = time.perf_counter()
        if now - self._shown < _SHOW_EVERY_SECONDS:
            return False
        self._shown = now
        return True

    def spent(self) -> list[float]:
        """Seconds, those of them without a batch, and images or tokens, so far."""
        return [self.seconds(), self.waited, self._count]

    def seconds(self) -> float:
        return self._earlier + time.perf_counter() - self._began

    def rate(self) -> float:
        """Images or tokens a second."""
        return self._count / self.seconds()

    def seconds_a_step(self) -> float:
        """Of this attempt alone: the ones before may have had other ranks."""
        return (self.seconds() - self._earlier) / max(self._steps, 1)


class LossWatch:
    """Reads the running loss behind the device's back: a copy is started each step and read when it has arrived.

    On the CPU the reading is always the newest; on CUDA it may be a few steps old.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._buffer = torch.zeros(2, dtype=torch.float64, pin_memory=self._cuda)
        self._event = torch.cuda.Event() if self._cuda else None
        self._under_way = False
        self._loss_sum, self._images = 0.0, 0.0

    def observe(self, loss_sum: Tensor, images: Tensor) -> None:
        """Hands in an epoch's sum of losses and number of images (or tokens) so far, 0-dim tensors on the device."""
        self._read()
        if self._under_way:
            return
        self._buffer.copy_(torch.stack([loss_sum, images]), non_blocking=True)
        if self._event is not None:
            self._event.record()
        self._under_way = True
        self._read()

    def _read(self) -> None:
        if self._under_way and (self._event is None or self._event.query()):
            self._loss_sum, self._images = self._buffer.tolist()
            self._under_way = False

    def not_finite(self) -> bool:
        self._read()
        return not math.isfinite(self._loss_sum)

    def loss(self) -> float | None:
        """Mean loss of the epoch so far on this rank; None before the first reading."""
        return self._loss_sum / self._images if self._images else None


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory so far: of the GPU's allocator on CUDA, of the process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
