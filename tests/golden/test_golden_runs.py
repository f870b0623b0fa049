"""Real runs, finished and interrupted, which stand under runs/ in the format of the day they were trained."""

from pathlib import Path

import pytest

from . import cases
from .harness import check, check_trained, environment


@pytest.mark.parametrize("name", cases.FINISHED)
def test_finished_runs_are_read(name: str, tmp_path: Path) -> None:
    check(f"finished/{name}", cases.finished(tmp_path, name))


def test_interrupted_runs_are_read(tmp_path: Path) -> None:
    check("interrupted", cases.interrupted(tmp_path))


@pytest.mark.slow
def test_interrupted_runs_go_on_to_the_result_of_runs_that_never_stopped(tmp_path: Path) -> None:
    """The golden records are of the same runs without the interruption."""
    cases.prepare_data(tmp_path)
    here = environment(tmp_path)
    found = cases.went_on(tmp_path)
    assert len(found) == 5
    for cell, record in found.items():
        check_trained("runs", cell, record, here)
