"""Rungs of a planned search, as epochs, and what its trials train at most."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from adarem.run.catalog import METRICS
from adarem.run.config import RunConfig
from adarem.run.errors import UserError
from adarem.run.halving import budget
from adarem.run.sweep import Halving, SweepSpec


def settle(spec: SweepSpec, configs: Sequence[RunConfig]) -> Halving | None:
    """A search's halving with rungs in epochs: shares of the length become whole ones at which runs are evaluated.

    Raises:
        UserError: no search; a share of trials that is none; rungs that are no epochs of every run, or not in order;
            a metric that has no figure after each epoch.
    """
    given = spec.halving
    if given is None:
        return None
    if not spec.search:
        raise UserError("grid.halving: the grid has no search; leave it out, or give grid.search")
    try:
        share = given.share
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise UserError(
            f"grid.halving.keep={given.keep}: needs a share of the trials between 0 and 1, for instance 1/3"
        )
    if METRICS[spec.metrics[0]].curve is None:
        raise UserError(
            f"grid.metrics={list(spec.metrics)}: {spec.metrics[0]} has no figure after each epoch, by which "
            "grid.halving could choose; let another be the first, or give grid.halving=null"
        )
    lengths = sorted({(c.scale.epochs, c.train.eval_every) for c in configs})
    if len(lengths) > 1:
        every = ", ".join(f"{epochs} and {eval_every}" for epochs, eval_every in lengths)
        raise UserError(
            f"grid.halving: runs differ in scale.epochs and train.eval_every ({every}); give all the same, or "
            "grid.halving=null"
        )
    ((epochs, eval_every),) = lengths
    rungs = [_in_epochs(rung, epochs, eval_every) for rung in given.rungs]
    if any(isinstance(rung, float) for rung in given.rungs):  # in a short run several shares are the same epoch
        rungs = [rung for i, rung in enumerate(rungs) if rung < epochs and rung not in rungs[:i]]
    if not given.rungs or sorted(set(rungs)) != rungs or rungs and not 1 <= rungs[0] <= rungs[-1] < epochs:
        raise UserError(
            f"grid.halving.rungs={list(given.rungs)}: needs epochs from 1 to {epochs - 1} in order, or shares of "
            "scale.epochs, for instance [0.1, 0.3]; or give grid.halving=null"
        )
    for rung in rungs:
        if rung % eval_every:
            raise UserError(
                f"grid.halving.rungs={list(given.rungs)}: train.eval_every={eval_every} evaluates nothing after epoch "
                f"{rung}; give multiples of {eval_every}"
            )
    return replace(given, rungs=tuple(rungs)) if rungs else None


def _in_epochs(rung: float, epochs: int, eval_every: int) -> int:
    if isinstance(rung, int):
        return rung
    if not 0 < rung < 1:
        return 0  # which no run has
    return max(1, round(rung * epochs / eval_every)) * eval_every


def budget_text(spec: SweepSpec, configs: Sequence[RunConfig]) -> str | None:
    """The epochs that the runs of a plan train at most, next to those without halving; None where it has none."""
    if spec.halving is None:
        return None
    trials: dict[tuple[str, str, int], int] = {}
    for c in configs:
        of = c.model.name, c.optimizer.name, c.seed
        trials[of] = trials.get(of, 0) + 1
    epochs = configs[0].scale.epochs
    halved = sum(budget(n, spec.halving, epochs) for n in trials.values())
    return f"halving: {spec.halving.text()}; at most {halved:,} epochs in place of {len(configs) * epochs:,}"
