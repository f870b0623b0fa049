"""Parameters spread over processes: each way to spread them computes what one process computes."""

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
from torch import nn
from torch.distributed.tensor import DTensor

from adarem import AdaRem, AdaRemS
from tests.support import sharding

IMPLEMENTATIONS: dict[str, dict[str, Any]] = {"single": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}
ALGORITHMS: list[dict[str, Any]] = [
    *({"scope": scope} for scope in ("tensor", "model")),
    *(
        {"sphere": sphere, "slr": slr, "radius": radius}
        for sphere in ("tensor", "model")
        for slr in (True, False)
        for radius in (None, 3.0)
    ),
    {"sphere": "model", "scope": "model"},
]
EXACT = 1e-12  # float64: some thousand roundings


def build(model: nn.Module, settings: dict[str, Any], **flags: Any) -> AdaRem:
    """AdaRemS, with matrices on the sphere, if ``settings`` name one; else AdaRem."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    common: dict[str, Any] = {"lr": 0.1, "weight_decay": 1e-2, "decay_every": 5, "lam": 0.5, **settings, **flags}
    if "sphere" in settings:
        return AdaRemS([{"params": matrices, "spherical": True}, {"params": vectors}], **common)
    return AdaRem([{"params": matrices}, {"params": vectors}], **common)


@dataclass(frozen=True)
class EqualsOneProcess:
    """Twenty steps, spread and not: the same parameters and the same state."""

    layout: str
    settings: dict[str, Any]
    implementation: str

    def __call__(self) -> None:
        found = []
        for layout in (None, self.layout):
            model = sharding.network()
            model[4].bias.requires_grad_(False)
            if layout is not None:
                sharding.spread(model, layout)
            optimizer = build(model, self.settings, **IMPLEMENTATIONS[self.implementation])
            sharding.train(model, optimizer, steps=20)
            found.append(sharding.values(model, optimizer))
        for name, p in model.named_parameters():
            if isinstance(p, DTensor) and p.requires_grad:
                m = optimizer.state[p]["exp_avg"]
                assert isinstance(m, DTensor) and m.placements == p.placements, name
        assert sharding.largest_difference(*found) < EXACT


def every(world: int) -> list[EqualsOneProcess]:
    combinations = itertools.product(sharding.LAYOUTS[world], ALGORITHMS, IMPLEMENTATIONS)
    return [EqualsOneProcess(*combination) for combination in combinations]


@pytest.mark.parametrize("world", [2, 4])
def test_equals_one_process(world: int) -> None:
    # A stride without common divisor with the number of implementations, algorithms or layouts: all pairs of values
    # occur, nearly.
    sharding.run_in_processes(world, every(world)[::13])


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_every_combination_equals_one_process(world: int) -> None:
    sharding.run_in_processes(world, every(world))
