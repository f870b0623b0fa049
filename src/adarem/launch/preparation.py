"""Which data sets a launch has to write before its runs can start."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from adarem.data import fingerprint
from adarem.data.text.corpus import read_corpus
from adarem.run.config import DataConfig, TextConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError

if TYPE_CHECKING:
    from adarem.plan.plan import Cell


def is_prepared(data: DataConfig | TextConfig) -> bool:
    """Whether the data set is complete, and written with these settings, where the run will read it."""
    try:
        if isinstance(data, TextConfig):
            read_corpus(data)
            return True
        for split in fingerprint.SPLITS:
            found = fingerprint.read_fingerprint(data, split)
            if data.backend == "ffcv":
                fingerprint.open_beton(data, split)
                if found["write"] != dataclasses.asdict(data.write):
                    return False
    except UserError:
        return False
    return True


def unprepared(runs: Iterable["Cell"]) -> dict[str, RunDir]:
    """One run for each data set that is not prepared, under a key of eight hexadecimal digits of the data's place."""
    found: dict[str, RunDir] = {}
    for planned in runs:
        data = planned.config.data
        if not is_prepared(data):
            place = os.path.abspath(data.root if isinstance(data, TextConfig) else data.beton_dir)
            found.setdefault(hashlib.sha256(place.encode()).hexdigest()[:8], planned.run)
    return found
