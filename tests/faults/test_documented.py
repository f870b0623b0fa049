"""docs/faults.md names tests that exist."""

import re

from tests.support import ROOT

TEXT = (ROOT / "docs" / "faults.md").read_text()


def test_each_fault_names_a_test_that_exists() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")]
    faults = [row.rstrip(" |").rpartition(" | ")[2] for row in rows if row.count(" | ") == 2]
    named = [re.findall(r"`([\w/]+\.py)`", cell) for cell in faults if cell not in ("test", "---")]
    assert len(named) > 35 and all(named)


def test_no_test_is_named_that_does_not_exist() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", TEXT))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()] == []
