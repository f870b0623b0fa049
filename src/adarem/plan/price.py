"""What is left of a plan costs so much: hours, disk, money and a date, by what `adarem probe` measured."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adarem.run.config import ClusterConfig, RunConfig
from adarem.run.directory import FINISHED
from adarem.run.errors import UserError
from adarem.run.estimate import (
    FLAT_TIME,
    Estimate,
    estimate,
    read_estimates,
    time_limit,
    wall_seconds,
    write_estimates,
)
from adarem.run.halving import budget, read_places
from adarem.run.machine import cores, gpus_to_use
from adarem.run.measurements import Measurement, Measurements, read_measurements
from adarem.run.sweep import Halving, read_sweep

if TYPE_CHECKING:
    from adarem.plan.plan import PlannedRun

CHECKPOINTS_KEPT = 2  # of each run


@dataclass(frozen=True)
class PricedRun:
    """A run that is not finished, and was measured."""

    planned: "PlannedRun"
    measurement: Measurement
    whole: Estimate
    left: Estimate  # of a search with halving: up to the epochs that its trials train on average
    to_its_end: Estimate  # as left, up to its last epoch


@dataclass(frozen=True)
class Price:
    """Of the runs of a plan that are not finished."""

    runs: Sequence[PricedRun]
    unmeasured: Sequence["PlannedRun"]
    why: str  # what is known of them: measured on another machine, say; or empty
    finished: int
    words: str  # the plan's own, as typed
    time_given: bool = False  # whether they say cluster.time
    data_bytes: int | None = None  # of the prepared files; None: not prepared, or no files of their own

    def lines(self, now: float | None = None) -> list[str]:
        """As `adarem plan` prints it; ``now``: time.time()."""
        if not self.runs and not self.unmeasured:
            return ["price: every run is finished"]
        if not self.runs:
            return [f"price: {self._not_measured()}"]
        found = [f"price: {self.sum(now)}", f"disk: {self._disk()}"]
        if (money := self._money()) is not None:
            found.append(f"money: {money}")
        cluster = self.runs[0].planned.config.cluster
        if cluster.name == "slurm":
            found.append(f"time limit: {self._limit(cluster)}")
        if self.unmeasured:
            found.append(f"not in the price: {len(self.unmeasured)} runs, {self._not_measured()}")
        return found

    def sum(self, now: float | None = None) -> str:
        """In one line: ``6 runs, 0.4 to 1.2 h each, 5.1 GPU hours, 2.0 h in all, done by 2026-11-29 07:30``."""
        if not self.runs and not self.unmeasured:
            return "every run is finished"
        if not self.runs:
            return self._not_measured()
        seconds = [run.left.seconds for run in self.runs]
        unit, hours = ("h", 3600.0) if max(seconds) >= 3600 else ("min", 60.0)
        least, most = min(seconds) / hours, max(seconds) / hours
        each = (
            f"{least:.1f} to {most:.1f} {unit} each" if f"{least:.1f}" != f"{most:.1f}" else f"{most:.1f} {unit} each"
        )
        cluster = self.runs[0].planned.config.cluster
        device = "GPU" if cluster.device == "cuda" else "core"
        wall = wall_seconds(seconds, at_a_time(cluster))
        done = time.strftime("%Y-%m-%d %H:%M", time.localtime((time.time() if now is None else now) + wall))
        parallel = at_a_time(cluster)
        how = "all at a time" if parallel is None else f"{parallel} at a time"
        rest = f" (and {len(self.unmeasured)} not measured)" if self.unmeasured else ""
        return (
            f"{len(self.runs)} runs left{rest}, {each}, {self.device_hours:.3g} {device} hours, "
            f"{_duration(wall)} with {how}; done by {done} if started now"
        )

    @property
    def device_hours(self) -> float:
        """GPU hours, or core hours on CPUs, of all that is left."""
        return sum(run.left.device_hours * _cores(run) for run in self.runs)

    @property
    def limits(self) -> dict[str, float]:
        """Seconds that a job of each measured run has to have, by the run's name."""
        return {run.planned.run.path.name: run.to_its_end.seconds for run in self.runs}

    def _limit(self, cluster: ClusterConfig) -> str:
        if self.time_given or cluster.time != FLAT_TIME:
            return f"{cluster.time or 'as the site has it'}, by cluster.time"
        if self.unmeasured:
            return f"{FLAT_TIME} a job, since not all runs are measured"
        return (
            f"{time_limit(max(self.limits.values()))} a job: 1.3 x the longest run; a job that takes longer goes on in "
            "its next start"
        )

    def _disk(self) -> str:
        checkpoints = sum(CHECKPOINTS_KEPT * run.measurement.checkpoint_bytes for run in self.runs)
        data = "not prepared" if self.data_bytes is None else _bytes(self.data_bytes)
        return f"data {data}, checkpoints of these runs {_bytes(checkpoints)}"

    def _money(self) -> str | None:
        prices = [run.planned.config.cluster.price_per_gpu_hour for run in self.runs if run.whole.cuda]
        if not prices or None in prices:
            return None
        of_runs = (run.left.device_hours * (run.planned.config.cluster.price_per_gpu_hour or 0) for run in self.runs)
        each = " or ".join(f"{p:g}" for p in dict.fromkeys(prices) if p is not None)
        return f"{sum(of_runs):,.2f} at {each} a GPU hour"

    def _not_measured(self) -> str:
        why = f" ({self.why})" if self.why else ""
        command = f"adarem probe {self.words}".strip()
        return f"not measured here{why}; `{command}` measures some seconds of each network and optimizer"


def _cores(run: PricedRun) -> int:
    """Cores of a rank on CPUs, where hours are counted by core."""
    return 1 if run.whole.cuda else run.planned.config.cluster.cpus_per_rank


def at_a_time(cluster: ClusterConfig) -> int | None:
    """How many runs are trained at once; None: all. On this machine as many as it has GPUs or cores for."""
    if cluster.name == "slurm":
        return cluster.max_parallel or None
    if cluster.device == "cuda":
        places = gpus_to_use() // cluster.ranks_per_node
    else:
        places = cores() // (cluster.ranks_per_node * cluster.cpus_per_rank)
    return max(1, min(places, cluster.max_parallel or places))


def _duration(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _bytes(n: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n / 1e3:.1f} kB"


def price(
    runs: Sequence["PlannedRun"],
    runs_dir: Path,
    words: str,
    halving: Halving | None = None,
    *,
    time_given: bool = False,
) -> Price:
    """The price of what is left of these runs. What cannot be read counts as not measured.

    Args:
        words: the plan's overrides.
        time_given: whether they say cluster.time.
        halving: of the plan's search: each of its runs counts for the epochs that they train on average.
    """
    why = ""
    try:
        known = Measurements(read_measurements(runs_dir))
    except UserError as e:
        known, why = Measurements([]), str(e)
    stopped = _stopped(runs) if halving is not None else ()
    priced, unmeasured, finished = [], [], 0
    for planned in runs:
        if planned.run.status() in FINISHED or planned.run.path.name in stopped:
            finished += 1
        elif (m := known.of(planned.config)) is None:
            unmeasured.append(planned)
            why = why or known.elsewhere(planned.config) or ""
        else:
            done = planned.run.checkpointed_steps()
            left = estimate(planned.config, m, done, _epochs(planned, runs, halving))
            priced.append(PricedRun(planned, m, estimate(planned.config, m), left, estimate(planned.config, m, done)))
    return Price(priced, unmeasured, why, finished, words, time_given, _data_bytes(runs) if priced else None)


def _stopped(runs: Sequence["PlannedRun"]) -> set[str]:
    """Names of those that a rung ended."""
    folder = runs[0].run.path.parent
    try:
        places = read_places(folder, read_sweep(folder))
    except UserError:  # not planned yet, or damaged
        return set()
    return {name for name, place in places.items() if place.state == "stopped"}


def _epochs(planned: "PlannedRun", runs: Sequence["PlannedRun"], halving: Halving | None) -> float | None:
    """Those that a trial of its network and optimizer trains on average; None without halving."""
    if halving is None:
        return None

    def cell(config: RunConfig) -> tuple[str, str, int]:
        return config.model.name, config.optimizer.name, config.seed

    trials = sum(cell(p.config) == cell(planned.config) for p in runs)
    return budget(trials, halving, planned.config.scale.epochs) / trials


def _data_bytes(runs: Sequence["PlannedRun"]) -> int | None:
    from adarem.data.prepared import prepared_bytes  # needs numpy

    found = [prepared_bytes(data) for data in dict.fromkeys(planned.config.data for planned in runs)]
    known = [n for n in found if n is not None]
    return sum(known) if known else None


def keep_estimates(folder: Path, made: Price) -> None:
    """Writes the estimate of each run into the sweep's folder. A run that has begun keeps that of before it began."""
    if not made.runs:
        return
    try:
        before: Mapping[str, Estimate] = read_estimates(folder)
    except UserError:  # damaged: these take its place
        before = {}
    new = {
        run.planned.run.path.name: run.whole
        for run in made.runs
        if run.planned.run.path.name not in before or not run.planned.run.attempts_file.exists()
    }
    if any(before.get(name) != of_run for name, of_run in new.items()):
        write_estimates(folder, {**before, **new})
