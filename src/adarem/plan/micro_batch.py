"""``scale.micro_batch_size=auto``: the number that takes its place in a run's config."""

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from adarem.run.batch_norm import MICRO_BATCH
from adarem.run.config import RunConfig, from_dict
from adarem.run.errors import UserError
from adarem.run.identity import identity
from adarem.run.measurements import Measurements, read_measurements
from adarem.run.sweep import runs_in

AUTO = "auto"


class MicroBatches:
    """The largest size that fits, as it was measured; that of a run which was planned before, where it fits too.

    Args:
        runs_dir: where measurements and runs are.
        words: the overrides, for the command that measures.
        measured: False: a size is about to be measured, and none is needed.
    """

    def __init__(self, runs_dir: Path, words: str, *, measured: bool) -> None:
        self._runs_dir, self._words, self._measured = runs_dir, words, measured
        self.asked = False  # whether a run has left it to a measurement

    def complete(self, raw: Mapping[str, object]) -> RunConfig:
        """The config of a composed run, checked, with a number in place of auto.

        Raises:
            UserError: as ``from_dict``; there is no measurement.
        """
        scale = raw["scale"]
        if not isinstance(scale, Mapping) or scale.get("micro_batch_size") != AUTO:
            return from_dict(raw)
        config = from_dict({**raw, "scale": {**scale, "micro_batch_size": None}})
        return replace(config, scale=replace(config.scale, micro_batch_size=self._of(config)))

    def _of(self, config: RunConfig) -> int | None:
        """For a config without a size.

        Raises:
            UserError: there is no measurement.
        """
        self.asked = True
        if not self._measured:
            return None
        of_rank = config.scale.global_batch_size // config.cluster.world_size
        largest = self._known.largest_micro_batch_size(config)
        frozen = [n for n in self._frozen(config.grid).get(_but_size(config), ()) if of_rank % n == 0]
        fitting = [n for n in frozen if largest is None or n <= largest]
        if fitting or largest:
            return max(fitting) if fitting else largest
        command = f"adarem probe {self._words}".strip()
        raise UserError(
            f"{MICRO_BATCH}={AUTO}: not measured here; run `{command}`, or give a number that divides {of_rank}"
        )

    @functools.cached_property
    def _known(self) -> Measurements:
        return Measurements(read_measurements(self._runs_dir))

    @functools.cache  # noqa: B019  # as long as a plan is made
    def _frozen(self, grid: str) -> dict[str, list[int]]:
        """Sizes of runs that were planned, by what they compute."""
        found: dict[str, list[int]] = {}
        for sweep in sorted(self._runs_dir.glob(f"{grid}*/")):
            for run in runs_in(sweep):
                try:
                    config = run.config()
                except UserError:
                    continue
                if config.scale.micro_batch_size is not None:
                    found.setdefault(_but_size(config), []).append(config.scale.micro_batch_size)
        return found


def _but_size(config: RunConfig) -> str:
    settings = {k: v for k, v in identity(config).items() if k not in ("cell", MICRO_BATCH)}
    return json.dumps({k: v for k, v in settings.items() if not k.startswith("overrides.")}, sort_keys=True)
