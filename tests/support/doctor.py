"""What the tests of the doctor share."""

import dataclasses

from adarem.doctor.all_checks import checks
from adarem.doctor.check import Check
from adarem.run.config import RunConfig

TORCH = {"version": "2.14.1", "torchvision": "0.29.2", "cuda": "13.0", "gpus": [], "gloo": True, "nccl": True}


def on(config: RunConfig, **cluster: object) -> RunConfig:
    """The config with other settings of its cluster."""
    return dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, **cluster))


def found(config: RunConfig | None, name: str) -> list[Check]:
    """The checks of that name."""
    return [c for c in checks(config) if c.name == name]
