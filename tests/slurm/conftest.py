import os

import pytest
from cluster import cluster, missing

from adarem.__main__ import main


@pytest.fixture(scope="session")
def slurm_cluster():
    """The environment in which sbatch talks to a real two-node cluster."""
    if reason := missing():
        if os.environ.get("CI") == "true":
            pytest.fail(f"the Slurm tests cannot run: {reason}")
        pytest.skip(f"the Slurm tests cannot run: {reason}")
    with cluster() as env:
        yield env


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The embedded data, prepared once: overrides that point there."""
    root = tmp_path_factory.mktemp("digits")
    overrides = ["data=digits", f"data.root={root}"]
    assert main(["prepare", *overrides, "--workers=2"]) == 0
    return overrides
