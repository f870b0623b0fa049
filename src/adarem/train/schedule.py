"""The learning rate as a pure function of the step, so that a resumed run needs no schedule state."""

import math
from collections.abc import Sequence


def learning_rate(
    name: str,
    base_lr: float,
    step: int,
    *,
    total_steps: int,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    min_factor: float = 0.0,
) -> float:
    """The rate of step ``step``, 0 to ``total_steps - 1``.

    ``cosine`` (Loshchilov & Hutter 2016, without restarts; the paper's section 4.1.1) falls from ``base_lr`` at the
    first step after the warm-up towards ``min_factor * base_lr``, which it would reach at ``total_steps``. ``step``
    multiplies by ``gamma`` at each milestone (epochs). ``constant`` stays. A warm-up rises linearly and ends at
    ``base_lr``.
    """
    warmup = round(warmup_epochs * steps_per_epoch)
    if step < warmup:
        return base_lr * (step + 1) / warmup
    if name == "cosine":
        least = min_factor * base_lr
        return least + 0.5 * (base_lr - least) * (1.0 + math.cos(math.pi * (step - warmup) / (total_steps - warmup)))
    if name == "step":
        return base_lr * gamma ** sum(step >= m * steps_per_epoch for m in milestones)
    assert name == "constant", name
    return base_lr
