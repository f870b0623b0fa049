"""Seeds the generators that a forward pass draws from, at a cost that a loop can pay at each step."""

import torch


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds the CPU's generator and that of ``device``: the numbers that follow are those after torch.manual_seed.

    torch.manual_seed queues a call with a formatted stack trace for each kind of device that is not initialised, at
    every call: 0.1 ms, and memory that is never given back.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[
            torch.cuda.current_device() if device.index is None else device.index
        ].manual_seed(seed)
