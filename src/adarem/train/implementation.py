"""Which implementation takes AdaRem's steps: one for all ranks, agreed on before the first step.

Implementations differ in the last bits. Ranks with different ones would train different weights.
"""

from typing import NamedTuple

from adarem import caches
from adarem.optim.kernels.fused import kernels
from adarem.run.config import OptimizerConfig
from adarem.train.distributed.context import RankContext
from adarem.train.slower import collecting, of_all_ranks


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
    private = caches.use_private("TRITON_CACHE_DIR", "triton") if context.device.type == "cuda" else ""
    with collecting():  # the run's log has the notes
        own = kernels(context.device.type)
    everywhere = all(context.gather(bool(own.name)))
    notes = of_all_ranks(context, [note for note in (private, own.note) if note])
    return Implementation(f"fused ({own.name})" if everywhere else "foreach", notes)
