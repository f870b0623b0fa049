"""Whether a run saw the genuine data, whole: by what it recorded, not by what its config says."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adarem.run.config import RunConfig

# Share of the training images that may be missing: a few unreadable files, left out by `adarem prepare --skip-bad`.
TRAINING_MAY_LACK = 0.001
WORDS = {"train": "training", "val": "validation", "test": "test"}


def not_genuine(config: RunConfig, result: Mapping[str, Any], evaluated: np.ndarray) -> str | None:
    """One line on the data that a run saw, where it is not the genuine set; None where it is, or nothing is known yet.

    Args:
        result: its result.json, empty while there is none.
        evaluated: how many images or tokens each of its evaluations counted.
    """
    d = config.data
    unit = "images" if d.kind == "images" else "tokens"
    expected = {"train": d.expected_train, "val": d.expected_val}
    if d.kind == "text":
        expected["test"] = d.expected_test
    wrong = []
    if result:
        for split, count in expected.items():
            there = (result["fingerprint"].get(split) or {}).get(f"num_{unit}") if result.get("fingerprint") else None
            if not _whole(there, count, TRAINING_MAY_LACK if (split, unit) == ("train", "images") else 0.0):
                wrong.append(f"{_number(there)} of {_number(count)} {WORDS[split]} {unit}")
    if wrong:
        return _line(f"{d.label} with {' and '.join(wrong)}")
    counts = [*evaluated[np.isfinite(evaluated)].astype(int).tolist()]
    if result.get("status") == "done" and unit == "images":
        counts.append((result.get("evaluation") or {}).get("images"))
    if partial := [n for n in counts if not _whole(n, d.expected_val, 0.0)]:
        text = f"{d.label}, evaluated on {_number(partial[-1])} of {_number(d.expected_val)} validation {unit}"
        return _line(text)
    return None


def _whole(there: int | None, expected: int | None, may_lack: float) -> bool:
    return bool(there and expected) and expected * (1.0 - may_lack) <= there <= expected


def _number(n: int | None) -> str:
    return f"{n:,}" if n else "an unknown number"


def _line(what: str) -> str:
    return f"{what}: shows that the pipeline works, says nothing about the paper's claims"
