"""Which data sets have to be written before a launch's runs can start."""

import hashlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from adarem.data import is_prepared
from adarem.run.config import TextConfig
from adarem.run.directory import RunDir

if TYPE_CHECKING:
    from adarem.plan.plan import PlannedRun


def unprepared(runs: Iterable["PlannedRun"]) -> dict[str, RunDir]:
    """One run for each data set that is not prepared, under a key of eight hexadecimal digits of the data's place."""
    found: dict[str, RunDir] = {}
    for planned in runs:
        data = planned.config.data
        if not is_prepared(data):
            place = os.path.abspath(data.root if isinstance(data, TextConfig) else data.beton_dir)
            found.setdefault(hashlib.sha256(place.encode()).hexdigest()[:8], planned.run)
    return found
