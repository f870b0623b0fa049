"""How an epoch of a text is cut into batches, as a pure function of (seed, epoch). numpy only."""

import numpy as np
from numpy.typing import NDArray


def bptt_lengths(
    rows: int, *, bptt: int, half: float, deviation: float, least: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Lengths of an epoch's batches in time steps: a pure function of seed and epoch, with the sum ``rows``.

    Drawn as Merity et al. 2017 do (section 4.1): around ``bptt``, with probability ``half`` around half of it, with a
    normal deviation, at least ``least``. Theirs end where the text does; here the number of batches is the expected
    one, the same in every epoch, and what the draw is off by is spread over the batches, a time step each. Schedule,
    lambda and resume count steps, so that an epoch has to have a fixed number of them.
    """
    steps = max(1, round(rows / (bptt * (1.0 - 0.5 * half))))
    if rows < least * steps:
        return np.asarray([rows])
    draw = np.random.default_rng([seed, epoch])
    around = np.where(draw.random(steps) < half, bptt / 2.0, float(bptt))
    lengths = np.maximum(least, draw.normal(around, deviation).astype(np.int64))
    while off := rows - int(lengths.sum()):
        able = np.arange(steps) if off > 0 else np.flatnonzero(lengths > least)
        lengths[draw.permutation(able)[: abs(off)]] += np.sign(off)
    return lengths
