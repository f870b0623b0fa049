"""What every grid plans: the text, the grid as kept for the report, and every frozen config."""

from pathlib import Path

import pytest

from . import cases
from .harness import check


@pytest.mark.parametrize("name", cases.PLANS)
def test_the_plan_is_the_golden_one(name: str, tmp_path: Path) -> None:
    check(f"plan/{name}", cases.plan(tmp_path, name))
