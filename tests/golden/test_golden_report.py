"""Reports of run directories with fixed numbers, which stand under sweeps/ in the format of the day they were made."""

from pathlib import Path

import pytest

from . import cases
from .harness import EXPECTED, check


@pytest.mark.parametrize("sweep", cases.REPORTS)
def test_the_report_is_the_golden_one(sweep: str, tmp_path: Path) -> None:
    check(f"report/{sweep}", cases.reports(tmp_path, sweep))


def test_a_changed_number_is_shown() -> None:
    folder = EXPECTED / "report" / "table2"
    found = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    check("report/table2", found)
    assert "70.67" in found["table2/table.md"]
    changed = found | {"table2/table.md": found["table2/table.md"].replace("70.67", "70.68")}
    with pytest.raises(AssertionError, match=r"(?s)-.*70\.67.*\+.*70\.68.*python -m tests\.golden\.update"):
        check("report/table2", changed)
    del changed["table2/table.md"]
    with pytest.raises(AssertionError, match="golden report/table2/table2/table.md"):
        check("report/table2", changed)
