"""What a run is expected to take, by what was measured; ``estimate.json`` of a sweep, which the report reads."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adarem.run.build import build
from adarem.run.config import RunConfig
from adarem.run.errors import UserError
from adarem.run.files import read_json, write_atomically
from adarem.run.measurements import Measurement

FORMAT = 1
FLAT_TIME = "2-00:00:00"  # of configs/cluster/slurm.yaml: a job's limit where nothing was measured, and the largest


@dataclass(frozen=True)
class Estimate:
    """Of one run, or of what is left of it."""

    seconds: float  # of the wall clock, from the command to its end
    before_record_seconds: float  # those of them before a run records its attempt
    cpu_seconds: float  # of all ranks
    ranks: int
    cuda: bool
    measured: str  # when, UTC

    @property
    def device_hours(self) -> float:
        """GPU hours; of runs on CPUs the hours of all ranks."""
        return self.seconds / 3600 * self.ranks


def estimate(config: RunConfig, m: Measurement, steps_done: int = 0, epochs: float | None = None) -> Estimate:
    """What a run takes from ``steps_done`` on, at the speed that was measured for it.

    Args:
        epochs: at which it ends; None: those of its config.
    """
    full, every = config.scale.epochs, config.train.eval_every
    end, done = full if epochs is None else epochs, steps_done / m.steps_per_epoch
    left = max(0.0, end - done)
    evaluations = sum(e % every == 0 or e == full for e in range(int(done) + 1, math.ceil(end) + 1))
    if m.unit == "tokens":
        evaluations += 1  # the test text
    return Estimate(
        seconds=m.start_seconds + left * m.epoch_seconds + evaluations * m.evaluation_seconds,
        before_record_seconds=m.before_record_seconds,
        cpu_seconds=m.start_cpu_seconds + left * m.epoch_cpu_seconds + evaluations * m.evaluation_cpu_seconds,
        ranks=m.ranks,
        cuda=config.cluster.device == "cuda",
        measured=m.date,
    )


def wall_seconds(runs: list[float], at_a_time: int | None) -> float:
    """When the last of some runs ends, each started as soon as there is a place for it, in their order.

    Args:
        runs: seconds of each.
        at_a_time: places; None: as many as there are runs.
    """
    places = [0.0] * min(at_a_time or len(runs), len(runs))
    for seconds in runs:
        places[places.index(min(places))] += seconds
    return max(places, default=0.0)


def time_limit(seconds: float, *, factor: float = 1.3, least: float = 600.0, most: float = 172_800.0) -> str:
    """Slurm's form of a job's time limit: ``seconds`` with a margin, within bounds, in full minutes; 1-02:30:00."""
    minutes = math.ceil(min(max(factor * seconds, least), most) / 60)
    days, hours = divmod(minutes // 60, 24)
    return f"{f'{days}-' if days else ''}{hours:02d}:{minutes % 60:02d}:00"


def estimate_file(sweep: Path) -> Path:
    return sweep / "estimate.json"


def read_estimates(sweep: Path) -> dict[str, Estimate]:
    """Each run's estimate by its name; empty where none was made.

    Raises:
        UserError: the file is damaged or of another format.
    """
    path = estimate_file(sweep)
    raw = read_json(path)
    if raw is None:
        return {}
    runs = raw.get("runs")
    if raw.get("format") != FORMAT or not isinstance(runs, Mapping):
        raise UserError(f"{path}: not estimates of format {FORMAT}; remove it and plan again")
    try:
        return {str(name): build(Estimate, of_run) for name, of_run in runs.items()}
    except UserError as e:
        raise UserError(f"{path}: {e}; remove it and plan again") from None


def write_estimates(sweep: Path, estimates: Mapping[str, Estimate]) -> None:
    """Writes the file; what is there of before is replaced."""
    runs = {name: dataclasses.asdict(estimates[name]) for name in sorted(estimates)}
    write_atomically(estimate_file(sweep), json.dumps({"format": FORMAT, "runs": runs}, indent=1) + "\n")
