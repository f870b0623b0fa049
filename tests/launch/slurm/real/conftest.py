import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, cluster, missing


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Cluster]:
    """A real two-node cluster."""
    if reason := missing():
        if os.environ.get("CI") == "true":
            pytest.fail(f"the Slurm tests cannot run: {reason}")
        pytest.skip(f"the Slurm tests cannot run: {reason}")
    with cluster() as running:
        yield running


@pytest.fixture(scope="session")
def digits(digits_root: Path) -> list[str]:
    """Overrides that point to the embedded data, prepared once for all tests."""
    return ["data=digits", f'data.root="{digits_root}"']
