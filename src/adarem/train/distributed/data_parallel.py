"""A model under DDP whose sums of gradients are the same in every attempt, and what several passes a step need."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adarem.optim import compat
from adarem.train.distributed.context import RankContext


def data_parallel(model: nn.Module, context: RankContext, example_input: Tensor) -> nn.Module:
    """The model under DDP, its layout of gradients settled; with one rank, the model itself.

    After its first backward pass, DDP lays out the gradients anew, in the order in which they came. With more than two
    ranks a sum over ranks depends on that layout, so the first step of each attempt would be summed unlike all later
    ones, and an interrupted run would differ in its last bits. Here the first backward pass is one without effect.

    Args:
        model: on the context's device.
        example_input: a batch that ``model`` takes. Every parameter bears on the output, or on its first tensor where
            the output is a tuple.
    """
    if context.world_size == 1:
        return model
    ids = [context.local_rank] if context.device.type == "cuda" else None
    network = DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    output: Tensor | tuple[Tensor, ...] = network(example_input.to(context.device))
    torch.autograd.backward((output if isinstance(output, Tensor) else output[0]).sum())
    network.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    return network


def without_exchange(network: nn.Module) -> AbstractContextManager[None]:
    """Around a forward and backward pass that is not a step's last: ranks add up gradients, each its own.

    Args:
        network: of `data_parallel`, before it is compiled.
    """
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


class FirstPassBuffers:
    """A model's buffers as the first pass of a step leaves them, whatever the passes after it do to them.

    DDP gives every rank the buffers of rank 0 before each step. So with one pass a rank, they follow that part of the
    batch which rank 0 has, and this is the part that comes first.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kept: list[Tensor] = []

    @torch.no_grad()
    def keep(self) -> None:
        """After the first pass."""
        buffers = list(self._model.buffers())
        if not self._kept:
            self._kept = [torch.empty_like(buffer) for buffer in buffers]
        if buffers:
            compat.foreach_copy_(self._kept, buffers)

    @torch.no_grad()
    def put_back(self) -> None:
        """After the last one."""
        if self._kept:
            compat.foreach_copy_(list(self._model.buffers()), self._kept)


def normalised_together(model: nn.Module, images_per_pass: int, world_size: int) -> int | None:
    """Images over which the model's BatchNorms take their statistics; None where it has none."""
    norms = [module for module in model.modules() if isinstance(module, compat.BatchNorm)]
    if not norms:
        return None
    return images_per_pass * (world_size if any(isinstance(norm, nn.SyncBatchNorm) for norm in norms) else 1)
