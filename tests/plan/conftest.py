import pytest


@pytest.fixture(autouse=True)
def _forked_plan(forked_plan: None) -> None:
    """For all tests of plan but those of the process itself."""
