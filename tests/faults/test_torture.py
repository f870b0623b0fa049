"""The short version of scripts/torture.py."""

from pathlib import Path

import pytest
import torch
from scripts.torture import differences, torture


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bits(tmp_path: Path) -> None:
    tally = torture(rounds=4, folder=tmp_path, seed=3, runs=[("adarem_s", 3)])
    assert tally.lost == [] and tally.rounds == tally.identical == 4


def test_a_bit_is_a_difference() -> None:
    a = {"model": {"w": torch.ones(3)}, "metrics": [{"loss": 1.0}]}
    b = {"model": {"w": torch.ones(3)}, "metrics": [{"loss": 1.0}]}
    assert differences(a, b) == []
    b["model"]["w"][1] = 1 + 2**-23
    assert differences(a, b) == [".model.w"]
    assert differences(a, {"model": a["model"], "metrics": [{"loss": 1.0 + 2**-52}]}) == [".metrics[0].loss"]
    assert differences(a, {"model": a["model"]}) == [": keys"]
