"""Measurements that nobody measured."""

from typing import Any

from adarem.run.config import RunConfig
from adarem.run.measurements import Measurement, machine, subject, torch_version


def measurement(config: RunConfig, **changed: Any) -> Measurement:
    """Of a config: 100 s an epoch of 50 steps, 10 s an evaluation, 20 s around both; CPU seconds are half of it."""
    fields: dict[str, Any] = dict(
        subject=subject(config), machine=machine(config.cluster), torch=torch_version(), device="cpu",
        cpu="a processor", hosts=("node1",), date="2026-01-02T03:04:05Z", load=0.0, unit="images",
        ranks=config.cluster.world_size, units_per_s=640.0, loader_share=0.05, memory_bytes=2**30,
        checkpoint_bytes=90_000_000, first_step_seconds=12.0, before_record_seconds=5.0, start_seconds=20.0,
        start_cpu_seconds=10.0, steps_per_epoch=50, epoch_seconds=100.0, epoch_cpu_seconds=50.0, evaluated=1000,
        evaluation_seconds=10.0, evaluation_cpu_seconds=5.0, steps=40, chunks=20, epochs=3,
    )  # fmt: skip
    return Measurement(**(fields | changed))
