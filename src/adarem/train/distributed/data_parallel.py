"""A model under DDP whose sums of gradients are the same in every attempt."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

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
