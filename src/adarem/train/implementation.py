"""Which implementation takes AdaRem's steps: one for all ranks, agreed on before the first step.

Implementations differ in the last bits. Ranks with different ones would train different weights.
"""

import warnings
from typing import NamedTuple

from adarem.optim.kernels.fused import kernels
from adarem.run.config import OptimizerConfig
from adarem.train.distributed.context import RankContext


class Implementation(NamedTuple):
    """Of a run's steps, in one attempt."""

    name: str  # "fused (C++)", "fused (Triton)" or "foreach"
    notes: tuple[str, ...]  # one line each: why a rank has no kernels, or what every start pays for

    @property
    def fused(self) -> bool:
        return self.name != "foreach"


def agree(context: RankContext, optimizer: OptimizerConfig) -> Implementation | None:
    """Fused where every rank can; kernels are compiled if need be. Every rank must call.

    Returns:
        None for optimizers other than AdaRem and AdaRem-S, whose steps are torch's on every machine.
    """
    if optimizer.imported is not None or optimizer.name not in ("adarem", "adarem_s"):
        return None
    context.heartbeat.repeat()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run's log has the notes, once for all ranks
        own = kernels(context.device.type)
    ranks = context.gather(own)
    everywhere = all(kernel.name for kernel in ranks)
    notes: dict[str, int] = {}  # each once, with the first rank that has it
    for rank, kernel in enumerate(ranks):
        if kernel.note:
            notes.setdefault(kernel.note, rank)
    lines = [f"rank {rank} on {context.hosts[rank]}: {note}" for note, rank in notes.items()]
    return Implementation(f"fused ({own.name})" if everywhere else "foreach", tuple(lines))
