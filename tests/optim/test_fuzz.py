"""Random trainings with random faults: the implementations agree, or refuse in one line; none crashes."""

import pytest

from tests.support.fuzz_optimizers import run


@pytest.mark.parametrize("cases", [70, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_case_crashes_or_disagrees(cases: int) -> None:
    failed = [outcome for outcome in run(cases, seed=0) if outcome.verdict not in ("agreed", "refused")]
    assert not failed
