"""The trials of a search out of ranges: quasi-random points, the same for a seed, whatever their number."""

import math
import warnings
from collections.abc import Iterable, Mapping

from adarem.run.build import as_float, nearest
from adarem.run.errors import UserError
from adarem.run.setting import Value
from adarem.run.sweep import Draw

KINDS = ("log_uniform", "uniform", "choice")
DIGITS = 3  # significant ones of a drawn number: names of runs hold it


def is_range(value: object) -> bool:
    """Whether a search gives a setting as ``{log_uniform: [low, high]}`` and not as a list of values."""
    return isinstance(value, Mapping)


def drawn(where: str, settings: Mapping[str, object], draw: Draw) -> dict[str, list[Value]]:
    """The values of each setting, as many as trials: the n-th of all settings are the n-th trial.

    The first trials stay where they are when there are more of them. A list of values is a choice.

    Args:
        where: of ``settings`` in the grid's file, for messages.
        settings: dotted key to its range.

    Raises:
        UserError: no such kind of range, or no range.
    """
    keys = sorted(settings)  # the order in a file makes no difference
    ranges = [_range(f"{where}.{key}", settings[key]) for key in keys]
    points = _points(len(keys), draw)
    return {
        key: [_at(kind, ends, float(u)) for u in of_key]
        for key, (kind, ends), of_key in zip(keys, ranges, zip(*points, strict=True), strict=True)
    }


def _range(where: str, value: object) -> tuple[str, list[Value]]:
    if isinstance(value, list):
        value = {"choice": value}
    if not isinstance(value, Mapping) or len(value) != 1:
        raise UserError(f"{where}={value}: needs one of {', '.join(KINDS)}, for instance {{log_uniform: [0.01, 1.0]}}")
    ((kind, ends),) = value.items()
    if kind not in KINDS:
        raise UserError(f"{where}.{kind}: no such range; {nearest(str(kind), KINDS)}")
    if not isinstance(ends, list) or not ends:
        raise UserError(f"{where}.{kind}={ends}: needs a list, for instance [0.01, 1.0]")
    if kind == "choice":
        return kind, ends
    numbers = [as_float(end, f"{where}.{kind}") for end in ends]
    if len(numbers) != 2 or numbers[0] >= numbers[1] or kind == "log_uniform" and numbers[0] <= 0:
        above = ", above 0" if kind == "log_uniform" else ""
        raise UserError(f"{where}.{kind}={ends}: needs [lowest, highest]{above}")
    return str(kind), list(numbers)


def _points(dimensions: int, draw: Draw) -> Iterable[Iterable[float]]:
    """One point of the unit cube a trial, from scipy's scrambled sequences."""
    from scipy.stats import qmc  # takes half a second, and only a search with ranges needs it

    sequence = (qmc.Sobol if draw.method == "sobol" else qmc.Halton)(dimensions, scramble=True, seed=draw.seed)
    with warnings.catch_warnings():  # on numbers of trials that are no power of 2
        warnings.simplefilter("ignore", UserWarning)
        points: Iterable[Iterable[float]] = sequence.random(draw.trials).tolist()
    return points


def _at(kind: str, ends: list[Value], u: float) -> Value:
    """The value at ``u`` of [0, 1)."""
    if kind == "choice":
        return ends[int(u * len(ends))]
    low, high = (float(end) for end in ends)  # type: ignore[arg-type]  # `_range` made numbers of them
    value = low + u * (high - low)
    if kind == "log_uniform":
        value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)
