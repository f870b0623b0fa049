"""How an epoch of a text is cut into batches, as a pure function of (seed, epoch). numpy only."""

from typing import NamedTuple

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


def training_windows(tokens: int, *, context: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Where an epoch's windows of ``context`` tokens begin, in the order of training: a function of seed and epoch.

    They follow each other without overlap from a place that is drawn in each epoch, so that over the epochs every
    token is seen after contexts of every length. Their number is the same in every epoch; at most two windows' tokens
    are left out.

    Args:
        tokens: of the text, at least two windows.
    """
    draw = np.random.default_rng([seed, epoch])
    first = int(draw.integers(context))
    return first + context * draw.permutation(tokens // context - 1).astype(np.int64)


class ScoredWindows(NamedTuple):
    """Windows of one length, in the order of the text."""

    starts: NDArray[np.int64]  # the first token of each
    scored_from: NDArray[np.int64]  # the first token that counts: those before it belong to the windows before


def scored_windows(tokens: int, *, context: int) -> ScoredWindows:
    """Windows of an evaluation, in which every token of a text counts exactly once.

    Each begins half a window after the one before and counts its second half; the first counts all of its tokens, and
    the last ends with the text. So a token is predicted from at least half a window before it, except at the text's
    beginning.
    """
    if tokens <= context:
        return ScoredWindows(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
    stride = max(1, context // 2)
    ends = np.append(np.arange(context, tokens, stride, dtype=np.int64), tokens)
    return ScoredWindows(ends - context, np.concatenate([[0], ends[:-1]]))
