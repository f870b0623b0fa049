"""Parameters spread over processes: each way to spread them computes what one process computes."""

import copy
import itertools
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor

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


@dataclass(frozen=True)
class Resumes:
    """A second network and optimizer that load what the first ones save have their state, and go on as they do."""

    way: str
    layout: str
    settings: dict[str, Any]
    implementation: str
    other_layout: str | None = None  # that of the second network; None is the first one's
    dtype: torch.dtype = torch.float64

    def __call__(self) -> None:
        flags = IMPLEMENTATIONS[self.implementation]
        model = sharding.spread(sharding.network(self.dtype), self.layout)
        optimizer = build(model, self.settings, **flags)
        sharding.train(model, optimizer, steps=5)
        other = sharding.network(self.dtype)
        with torch.no_grad():
            for p in other.parameters():
                p.add_(0.1)
        sharding.spread(other, self.other_layout or self.layout)
        other_optimizer = build(other, self.settings, **flags)
        WAYS[self.way](model, optimizer, other, other_optimizer)
        for p in other.parameters():
            m = other_optimizer.state[p]["exp_avg"]
            assert getattr(m, "placements", None) == getattr(p, "placements", None)
        # Layouts sum up squares in different orders: what follows is equal to rounding.
        for tolerance in (0.0, 0.0 if self.other_layout is None else EXACT):
            found = sharding.values(model, optimizer), sharding.values(other, other_optimizer)
            assert [x.dtype for x in found[0].values()] == [x.dtype for x in found[1].values()]
            assert sharding.largest_difference(*found) <= tolerance
            sharding.train(model, optimizer, steps=5, seed=2)
            sharding.train(other, other_optimizer, steps=5, seed=2)


def _through_own_dicts(model: nn.Module, optimizer: AdaRem, other: nn.Module, other_optimizer: AdaRem) -> None:
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


@dataclass(frozen=True)
class _ThroughStateDicts:
    """torch.distributed.checkpoint.state_dict's functions, with options."""

    saving: StateDictOptions
    loading: StateDictOptions

    def __call__(self, model: nn.Module, optimizer: AdaRem, other: nn.Module, other_optimizer: AdaRem) -> None:
        weights, state = copy.deepcopy(get_state_dict(model, optimizer, options=self.saving))
        set_model_state_dict(other, weights, options=self.loading)
        set_optimizer_state_dict(other, other_optimizer, state, options=self.loading)


@dataclass(frozen=True)
class _ThroughFiles:
    """torch.distributed.checkpoint's save and load."""

    options: StateDictOptions

    def __call__(self, model: nn.Module, optimizer: AdaRem, other: nn.Module, other_optimizer: AdaRem) -> None:
        folder = [tempfile.mkdtemp() if dist.get_rank() == 0 else ""]
        dist.broadcast_object_list(folder)
        sharding.save(folder[0], model, optimizer, self.options)
        sharding.load(folder[0], other, other_optimizer, self.options)
        dist.barrier()
        if dist.get_rank() == 0:
            shutil.rmtree(folder[0])


_FULL = StateDictOptions(full_state_dict=True)
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
WAYS: dict[str, Callable[[nn.Module, AdaRem, nn.Module, AdaRem], None]] = {
    "own": _through_own_dicts,
    "sharded": _ThroughStateDicts(StateDictOptions(cpu_offload=True), StateDictOptions()),
    "flat": _ThroughStateDicts(_FLAT, _FLAT),
    "full": _ThroughStateDicts(_FULL, _FULL),
    "first process": _ThroughStateDicts(
        StateDictOptions(full_state_dict=True, cpu_offload=True),
        StateDictOptions(full_state_dict=True, broadcast_from_rank0=True),
    ),
    "files": _ThroughFiles(StateDictOptions()),
    "flat files": _ThroughFiles(_FLAT),
}


def every(world: int) -> list[EqualsOneProcess]:
    combinations = itertools.product(sharding.LAYOUTS[world], ALGORITHMS, IMPLEMENTATIONS)
    return [EqualsOneProcess(*combination) for combination in combinations]


def every_resume(world: int) -> list[Resumes]:
    algorithms = ({}, {"sphere": "model", "radius": 3.0}, {"sphere": "tensor"})
    return [
        *(Resumes(*c) for c in itertools.product(WAYS, sharding.LAYOUTS[world], algorithms, IMPLEMENTATIONS)),
        *(Resumes(way, "fsdp", {"sphere": "model"}, "fused", dtype=torch.bfloat16) for way in WAYS),
        *(
            Resumes(way, one, {"sphere": "model"}, "foreach", other)
            for way in ("full", "files")
            for one, other in itertools.permutations(sharding.LAYOUTS[world], 2)
        ),
    ]


@dataclass(frozen=True)
class RefusesFlatParameters:
    """FullyShardedDataParallel's, in every process, whether they are wrapped before the optimizer is built or after."""

    original: bool

    def __call__(self) -> None:
        wrapped = FullyShardedDataParallel(
            sharding.network(), use_orig_params=self.original, device_id=torch.device("cpu")
        )
        for algorithm in (AdaRem, AdaRemS):
            with pytest.raises(RuntimeError, match="flat parameters.*use torch.distributed.fsdp.fully_shard"):
                algorithm(wrapped.parameters(), lr=0.1)
        if not self.original:
            return
        model = sharding.network()
        optimizer = AdaRem(model.parameters(), lr=0.1)
        wrapped = FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
        wrapped(torch.ones(4, 6, dtype=torch.float64)).sum().backward()
        with pytest.raises(RuntimeError, match="flat parameters.*use torch.distributed.fsdp.fully_shard"):
            optimizer.step()


def takes_original_parameters_that_are_complete() -> None:
    found = []
    for wrap in (False, True):
        model = sharding.network()
        outer: nn.Module = model
        if wrap:
            outer = FullyShardedDataParallel(
                model,
                use_orig_params=True,
                sharding_strategy=ShardingStrategy.NO_SHARD,
                device_id=torch.device("cpu"),
            )
        optimizer = build(model, {"sphere": "model", "scope": "model"}, foreach=True)
        sharding.train(outer, optimizer, steps=20)
        found.append(sharding.values(model, optimizer))
    names = [{k.removeprefix("_fsdp_wrapped_module."): v for k, v in values.items()} for values in found]
    assert sharding.largest_difference(*names) < EXACT


@dataclass(frozen=True)
class ZeroRedundancy:
    """Shares of the parameters: equal to one process, or refused where a maximum or norm is over the model."""

    settings: dict[str, Any]
    refused: str | None

    def __call__(self) -> None:
        found = []
        for share in (False, True):
            model = sharding.network()
            groups = build(model, self.settings).param_groups
            given = [{"params": g["params"], "spherical": g.get("spherical", False)} for g in groups]
            algorithm = AdaRemS if "sphere" in self.settings else AdaRem
            if algorithm is AdaRem:
                given = [{"params": g["params"]} for g in groups]
            settings = {"lr": 0.1, "weight_decay": 1e-2, **self.settings}
            if not share:
                optimizer: torch.optim.Optimizer = algorithm(given, **settings)
            elif self.refused is not None:
                with pytest.raises(
                    RuntimeError, match=f"{self.refused}='model' needs all parameters, and ZeroRedundancy"
                ):
                    ZeroRedundancyOptimizer(given, optimizer_class=algorithm, **settings)
                return
            else:
                optimizer = ZeroRedundancyOptimizer(given, optimizer_class=algorithm, **settings)
            sharding.train(model, optimizer, steps=20)
            found.append({name: p.detach() for name, p in model.named_parameters()})
        assert sharding.largest_difference(*found) == 0


@dataclass(frozen=True)
class StateBeforeAnyStep:
    """Asking for a state dict makes the state and is no step; the radius is still that of the first step."""

    settings: dict[str, Any]

    def __call__(self) -> None:
        found = []
        for layout in (None, "fsdp"):
            model = sharding.network()
            if layout is not None:
                sharding.spread(model, layout)
            optimizer = build(model, self.settings)
            if layout is not None:
                before = {name: sharding.full(p.detach()).clone() for name, p in model.named_parameters()}
                get_optimizer_state_dict(model, optimizer)
                assert {p for p in model.parameters()} == set(optimizer.state)
                assert all(state["step"] == 0 for state in optimizer.state.values())
                assert all(torch.equal(before[n], sharding.full(p.detach())) for n, p in model.named_parameters())
            with torch.no_grad():
                for p in model.parameters():  # as if weights were loaded
                    (p.to_local() if isinstance(p, DTensor) else p).mul_(1.5)
            sharding.train(model, optimizer, steps=20)
            found.append(sharding.values(model, optimizer))
        assert sharding.largest_difference(*found) < EXACT


@dataclass(frozen=True)
class Gradients:
    """Parameters in every placement, under gradients that are summands, not finite, empty or missing."""

    settings: dict[str, Any]
    implementation: str
    dtype: torch.dtype = torch.float64
    worst: float | None = None  # an element of the last rows

    def __call__(self) -> None:
        world = dist.get_world_size()
        mesh = init_device_mesh("cpu", (world,))
        placements: list[list[Placement]] = [[Shard(0)], [Shard(1)], [Replicate()]]
        found = []
        for spread in (False, True):
            torch.manual_seed(0)
            model = nn.Module()
            for i, shape in enumerate([(5, 3), (1, 7), (2, 2), (0, 3), (4, 4), (3,)]):
                w = torch.randn(shape).to(self.dtype)
                placement: list[Placement] = [Shard(0)] if w.dim() == 1 else placements[i % 3]
                p = distribute_tensor(w, mesh, placement) if spread and i != 4 else w  # the fifth stays a plain one
                model.register_parameter(f"w{i}", nn.Parameter(p))
            optimizer = build(model, self.settings, **IMPLEMENTATIONS[self.implementation])
            for step in range(20):
                for i, p in enumerate(model.parameters()):
                    grad = torch.randn(p.shape).to(self.dtype)
                    if self.worst is not None and i == 0 and step == 10:
                        grad[-1, -1] = self.worst
                    if isinstance(p, DTensor):
                        summand = grad if dist.get_rank() == world - 1 else torch.zeros_like(grad)
                        whole = DTensor.from_local(summand, mesh, [Partial()])
                        p.grad = whole if step % 2 else whole.redistribute(mesh, p.placements)
                    else:
                        p.grad = grad
                    if i == 2 and step % 3 == 0:
                        p.grad = None
                optimizer.step()
            found.append(sharding.values(model, optimizer))
        if self.worst is not None:
            found = [{k: v.nan_to_num(7.0, 8.0, 9.0) for k, v in values.items()} for values in found]
        # 16-bit parameters may differ by their own rounding where float32 norms differ by theirs.
        rounding = EXACT if self.dtype == torch.float64 else 4 * torch.finfo(self.dtype).eps
        assert sharding.largest_difference(*found) <= rounding


def refuses_state_that_is_spread_in_another_way() -> None:
    model = sharding.network()
    optimizer = build(model, {})
    sharding.train(model, optimizer, steps=1)
    other = sharding.spread(sharding.network(), "fsdp")
    other_optimizer = build(other, {})
    sharding.train(other, other_optimizer, steps=1)
    for one, two in ((optimizer, other_optimizer), (other_optimizer, optimizer)):
        with pytest.raises(ValueError, match="not distributed like the param; load it with .*set_optimizer_state_dict"):
            one.load_state_dict(two.state_dict())
    p = other[0].weight
    other_optimizer.state[p]["exp_avg"] = sharding.full(other_optimizer.state[p]["exp_avg"])
    with pytest.raises(RuntimeError, match="not distributed like the param: load it with .*set_optimizer_state_dict"):
        other_optimizer.step()


def counts_as_a_change_of_the_parameters() -> None:
    p = nn.Parameter(distribute_tensor(torch.ones(4, 4), init_device_mesh("cpu", (dist.get_world_size(),)), [Shard(0)]))
    for flags in IMPLEMENTATIONS.values():
        optimizer = AdaRem([p], lr=0.1, **flags)
        p.grad = torch.ones_like(p)
        loss = p.square().sum()
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@dataclass(frozen=True)
class Saves:
    """The state after five steps, and its values, for another number of processes."""

    folder: str
    settings: dict[str, Any]

    def __call__(self) -> None:
        model = sharding.spread(sharding.network(), "fsdp")
        optimizer = build(model, self.settings)
        sharding.train(model, optimizer, steps=5)
        sharding.save(self.folder, model, optimizer, StateDictOptions())
        saved = sharding.values(model, optimizer)
        sharding.train(model, optimizer, steps=5, seed=2)
        after = sharding.values(model, optimizer)
        if dist.get_rank() == 0:
            torch.save([saved, after], f"{self.folder}/values.pt")


@dataclass(frozen=True)
class Loads:
    """What :class:`Saves` has saved, in another layout."""

    folder: str
    settings: dict[str, Any]
    layout: str

    def __call__(self) -> None:
        model = sharding.spread(sharding.network(), self.layout)
        optimizer = build(model, self.settings)
        sharding.load(self.folder, model, optimizer, StateDictOptions())
        saved, after = torch.load(f"{self.folder}/values.pt")
        assert sharding.largest_difference(saved, sharding.values(model, optimizer)) == 0
        sharding.train(model, optimizer, steps=5, seed=2)
        assert sharding.largest_difference(after, sharding.values(model, optimizer)) < EXACT


ON_SPHERES: list[dict[str, Any]] = [{"sphere": "model"}, {"sphere": "tensor", "radius": 2.0}]
EDGES: list[Callable[[], None]] = [
    refuses_state_that_is_spread_in_another_way,
    counts_as_a_change_of_the_parameters,
    *(StateBeforeAnyStep(settings) for settings in ({}, *ON_SPHERES)),
    *(Gradients(s, i) for s in ({"scope": "model"}, *ON_SPHERES) for i in IMPLEMENTATIONS),
    *(Gradients({"sphere": "model"}, i, torch.bfloat16) for i in IMPLEMENTATIONS),
    *(Gradients({"scope": "model"}, i, worst=worst) for worst in (math.nan, math.inf) for i in IMPLEMENTATIONS),
]
REFUSALS = [
    RefusesFlatParameters(original=True),
    RefusesFlatParameters(original=False),
    takes_original_parameters_that_are_complete,
    ZeroRedundancy({}, None),
    ZeroRedundancy({"sphere": "tensor"}, None),
    ZeroRedundancy({"scope": "model"}, "scope"),
    ZeroRedundancy({"sphere": "model"}, "sphere"),
]


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_equals_one_process(world: int) -> None:
    # The strides have no divisor in common with the numbers of implementations, algorithms, layouts and ways.
    cases: list[Callable[[], None]] = [*every(world)[::17], *every_resume(world)[::41], *EDGES[:: 2 * world - 1]]
    sharding.run_in_processes(world, [*cases, *(REFUSALS if world == 2 else [])])


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_more_combinations_equal_one_process(world: int) -> None:
    sharding.run_in_processes(world, [*EDGES, *every(world)[:: world // 2]])


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_each_way_to_save_and_load_resumes(world: int) -> None:
    sharding.run_in_processes(world, every_resume(world)[:: 2 * world - 1])


@pytest.mark.slow
def test_another_number_of_processes_resumes(tmp_path: Path) -> None:
    settings: list[dict[str, Any]] = [{}, {"sphere": "model", "radius": 3.0}, {"sphere": "tensor"}]
    folders = [str(tmp_path / str(i)) for i in range(len(settings))]
    for world, other in ((2, 4), (4, 2)):
        sharding.run_in_processes(world, [Saves(f + str(world), s) for f, s in zip(folders, settings, strict=True)])
        loads = [
            Loads(f + str(world), s, layout)
            for f, s in zip(folders, settings, strict=True)
            for layout in sharding.LAYOUTS[other]
        ]
        sharding.run_in_processes(other, loads)
