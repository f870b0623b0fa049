"""How a run ends in order: a signal to one rank becomes a stop of all ranks after the same step."""

import os
import signal
import time
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from adarem.train.distributed.context import RankContext


class StopRequest(Protocol):
    """Asks for an orderly end."""

    @property
    def signal(self) -> str | None:
        """The name of the signal that asks for it, or None."""


class SignalListener:
    """A StopRequest that remembers SIGTERM, SIGUSR1 or SIGINT; a second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self._since = 0.0
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        now = time.monotonic()
        # One Ctrl-C arrives twice, from the terminal and from a launcher; a second one comes later than that.
        if number == signal.SIGINT and self.signal is not None and now - self._since > 2.0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        if self.signal is None:
            self.signal, self._since = signal.Signals(number).name, now


class StopCode(IntEnum):
    """What a rank asks for; the largest code of all ranks counts."""

    CONTINUE = 0
    STOP = 1
    NOT_FINITE = 2


class StopConsensus:
    """Ranks agree on a code one step late, so that no rank waits for another because of it.

    Each call hands in this rank's code and returns the largest code of the call before over all ranks: the same value
    on every rank at the same call. It travels over gloo on the host and never touches the device.
    """

    def __init__(self, context: "RankContext") -> None:
        self._group: dist.ProcessGroup | None = None
        if context.world_size > 1:
            group = dist.new_group(backend="gloo")
            assert isinstance(group, dist.ProcessGroup)
            context.check_peers(group, "stop")
            self._group = group
        self._code = torch.zeros(1, dtype=torch.int64)  # handed in, and once it has travelled the largest
        self._options = dist.AllreduceOptions()
        self._options.reduceOp, self._options.asyncOp = dist.ReduceOp.MAX, True
        self._pending: dist.Work | None = None

    def exchange(self, code: StopCode) -> StopCode:
        """Hands in this rank's code; with one rank, it is the result."""
        if self._group is None:
            return code
        agreed = self.settle()
        self._code.fill_(int(code))
        # Not dist.all_reduce: its checks and logging take longer than the rest of the exchange on the host.
        self._pending = self._group.allreduce([self._code], self._options)
        return agreed

    def settle(self) -> StopCode:
        """The result of the last exchange; afterwards none is pending."""
        if self._pending is None:
            return StopCode.CONTINUE
        self._pending.wait()
        self._pending = None
        return StopCode(int(self._code.item()))
