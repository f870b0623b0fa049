"""The sphere: the radius holds, its learning rate is the Euclidean network's, what has no direction is refused."""

import copy
import math
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.optim import Optimizer

from adarem import AdaRem, AdaRemS
from adarem.optim import param_groups

FLAGS = {"single": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
Batches = list[tuple[Tensor, Tensor]]
Euclidean = tuple[nn.Module, Batches, Tensor, nn.Module]  # start, batches, losses, trained

implementations = pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)


def norm(*params: Tensor) -> float:
    return math.sqrt(sum(p.detach().double().square().sum().item() for p in params))


# Every pair of implementation, sphere and radius; the fused step is quick enough for all of its steps.
_LONG = [
    pytest.param(implementation, sphere, radius, steps, marks=[pytest.mark.slow] if slow else [])
    for implementation, sphere, radius in (
        ("single", "model", None),
        ("single", "tensor", 3.0),
        ("foreach", "tensor", None),
        ("foreach", "model", 3.0),
        ("fused", "model", 3.0),
        ("fused", "tensor", None),
    )
    for steps, slow in ([(10_000, False)] if implementation == "fused" else [(1000, False), (10_000, True)])
]


@pytest.mark.parametrize(("implementation", "sphere", "radius", "steps"), _LONG)
def test_radius_holds_for_ten_thousand_steps(
    implementation: str, sphere: str, radius: float | None, steps: int
) -> None:
    torch.manual_seed(0)
    params = [torch.randn(40, 5, requires_grad=True), torch.randn(30, requires_grad=True)]
    start = [norm(p) for p in params]
    optimizer = AdaRemS(
        [{"params": params, "spherical": True}],
        lr=0.5,
        weight_decay=1e-3,
        sphere=sphere,
        radius=radius,
        **FLAGS[implementation],
    )
    grads = torch.randn(50, 230).split([200, 30], dim=1)
    expected = [math.hypot(*start)] if sphere == "model" else start
    if radius is not None:
        expected = [radius] * len(expected)
    furthest = 0.0
    for step in range(steps):
        for p, g in zip(params, grads, strict=True):
            p.grad = g[step % 50].view_as(p)
        optimizer.step()
        if step < 10 or step % 100 == 99:
            got = [norm(*params)] if sphere == "model" else [norm(p) for p in params]
            furthest = max([furthest, *(abs(a / b - 1) for a, b in zip(got, expected, strict=True))])
    assert furthest < 2e-7
    assert all(0 < optimizer.state[p]["alpha"].item() < math.inf for p in params)


@implementations
def test_large_tensors_keep_the_radius_too(flags: dict[str, bool]) -> None:
    """Where naive float32 sums of squares are 4e-5 off."""
    torch.manual_seed(0)
    p = torch.randn(2_000_000, requires_grad=True)
    optimizer = AdaRemS([{"params": [p], "spherical": True}], lr=0.1, radius=7.0, **flags)
    p.grad = torch.randn_like(p)
    optimizer.step()
    assert abs(norm(p) / 7.0 - 1) < 2e-7


@implementations
@pytest.mark.parametrize("size", [1e20, 1e-22])
def test_lengths_whose_squares_leave_the_range_of_32_bits(size: float, flags: dict[str, bool]) -> None:
    """From small weights with small gradients, or with gradients that make a step far off the sphere."""
    start = min(size, 1.0) * torch.tensor([0.6, -0.8, 0.0])
    grads = size * torch.tensor([1.0, 2.0, -2.0])
    radius = 5.0 * min(size, 1.0)
    p = nn.Parameter(start.clone())
    optimizer = AdaRemS([{"params": [p], "spherical": True}], lr=0.1, radius=radius, slr=False, **flags)
    p.grad = grads
    optimizer.step()
    moved = 5 * start.double() - 0.1 * grads.double()
    torch.testing.assert_close(p.detach().double() / radius, moved / moved.norm(), rtol=1e-6, atol=1e-7)


@implementations
@pytest.mark.parametrize("sphere", ["model", "tensor"])
def test_parameters_without_gradient_stay_put_and_count(flags: dict[str, bool], sphere: str) -> None:
    torch.manual_seed(0)
    a, b, frozen = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(3))
    frozen.requires_grad_(False)
    radius = norm(a, b, frozen)
    optimizer = AdaRemS([{"params": [a, b, frozen], "spherical": True}], lr=0.1, sphere=sphere, **flags)
    for step in range(9):
        a.grad = torch.randn_like(a) if step else None  # joins later
        b.grad = torch.randn_like(b) if step % 3 else None
        before = [t.detach().clone() for t in (a, b, frozen)]
        optimizer.step()
        for t, old in zip((a, b, frozen), before, strict=True):
            assert (t.grad is None) == torch.equal(t, old)
        if sphere == "model":
            assert norm(a, b, frozen) == pytest.approx(radius, rel=1e-14)


@implementations
def test_what_rounding_makes_longer_than_the_sphere_leaves_the_others_their_length(flags: dict[str, bool]) -> None:
    """In bfloat16 a large parameter without gradient may be longer than the radius, by rounding."""
    torch.manual_seed(0)
    large = torch.full((300,), 1.004, dtype=torch.bfloat16, requires_grad=True)
    small = torch.full((2,), 0.01, dtype=torch.bfloat16, requires_grad=True)
    optimizer = AdaRemS([{"params": [large, small], "spherical": True}], lr=1e-6, **flags)
    small.grad = torch.ones_like(small)
    optimizer.step()
    with torch.no_grad():
        large.mul_(1.01)
    optimizer.step()
    assert norm(small) == pytest.approx(0.01 * 2**0.5, rel=0.01)


@implementations
@pytest.mark.parametrize("lr", [torch.tensor([[0.125]]), torch.tensor(0.125, dtype=torch.float16)], ids=repr)
def test_tensor_rates_of_any_shape_and_type(flags: dict[str, bool], lr: Tensor) -> None:
    ends = []
    for rate in (lr, 0.125):
        torch.manual_seed(0)
        p = torch.randn(4, 3, requires_grad=True)
        optimizer = AdaRemS([{"params": [p], "spherical": True}], lr=rate, weight_decay=0.01, **flags)
        for _ in range(3):
            p.grad = torch.randn_like(p)
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_what_has_no_direction_is_refused(bad: float) -> None:
    good, p = torch.ones(3, requires_grad=True), torch.full((2, 2), bad, requires_grad=True)
    with pytest.raises(ValueError, match=r"Invalid spherical parameter at index 1, shape \(2, 2\): its norm is"):
        AdaRemS([{"params": [good, p], "spherical": True}])
    optimizer = AdaRemS([p])  # off the sphere it may be anything
    with pytest.raises(ValueError, match="Invalid spherical parameter at index 0"):
        optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)], "spherical": True})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"radius": 0.0}, "Invalid radius value: 0.0"),
        ({"radius": -1.0}, "Invalid radius value: -1.0"),
        ({"radius": math.nan}, "Invalid radius value: nan"),
        ({"sphere": "layer"}, "Invalid sphere value: layer"),
        ({"slr": 1}, "Invalid slr value: 1"),
    ],
)
def test_bad_settings_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaRemS([torch.ones(1, requires_grad=True)], **kwargs)


def test_a_decay_that_takes_all_is_refused_at_once_and_later() -> None:
    p = torch.ones(3, requires_grad=True)
    group = {"params": [p], "spherical": True}
    with pytest.raises(ValueError, match=r"lr \* weight_decay must be below 1 on the sphere"):
        AdaRemS([dict(group)], lr=10.0, weight_decay=0.1)
    optimizer = AdaRemS([dict(group)], lr=0.1, weight_decay=0.1)
    optimizer.param_groups[0]["lr"] = 10.0
    p.grad = torch.ones(3)
    with pytest.raises(ValueError, match="must be below 1"):
        optimizer.step()


def test_given_radius_moves_the_start_and_a_resumed_run_keeps_its_bits() -> None:
    torch.manual_seed(0)
    p = torch.randn(1000, requires_grad=True)
    size = norm(p)
    optimizer = AdaRemS([{"params": [p], "spherical": True}], lr=0.1, radius=2.0)
    assert norm(p) == pytest.approx(2.0, rel=1e-6)
    assert optimizer.state[p]["alpha"].item() == pytest.approx(size / 2, rel=1e-6)
    for _ in range(5):
        p.grad = torch.randn_like(p)
        optimizer.step()
    q = p.detach().clone().requires_grad_()
    resumed = AdaRemS([{"params": [q], "spherical": True}], lr=0.1, radius=2.0)
    assert torch.equal(p, q)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(optimizer.state[p]["alpha"], resumed.state[q]["alpha"])


def test_a_resumed_run_keeps_its_bits_where_some_parameters_wait() -> None:
    torch.manual_seed(0)
    params = [torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (1200, 7, 100_000)]
    optimizer = AdaRemS([{"params": params, "spherical": True}], lr=0.1, radius=2.0)
    for step in range(20):
        for i, p in enumerate(params):
            p.grad = torch.randn_like(p) if step % 3 != i else None
        optimizer.step()
        copies = [p.detach().clone().requires_grad_() for p in params]
        AdaRemS([{"params": copies, "spherical": True}], lr=0.1, radius=2.0)
        assert all(map(torch.equal, params, copies))


def test_radius_is_that_of_the_weights_at_the_first_step() -> None:
    p = torch.ones(4, requires_grad=True)
    optimizer = AdaRemS([{"params": [p], "spherical": True}], lr=0.1)
    with torch.no_grad():
        p.mul_(5)  # weights loaded after the optimizer was built
    p.grad = torch.tensor([1.0, 0, 0, 0])
    optimizer.step()
    assert norm(p) == pytest.approx(10.0, rel=1e-6)


@implementations
@pytest.mark.parametrize("sphere", ["model", "tensor"])
@pytest.mark.parametrize("radius", [None, 3.0])
def test_renewed_radius_is_that_of_weights_loaded_later(
    flags: dict[str, bool], sphere: str, radius: float | None
) -> None:
    """From there on it is an optimizer built on those weights, but for m and the counts."""
    torch.manual_seed(0)
    settings = {"lr": 0.1, "weight_decay": 0.1, "radius": radius, "sphere": sphere, **flags}
    params = [torch.randn(4, 3, requires_grad=True), torch.randn(5, requires_grad=True)]
    optimizer = AdaRemS([{"params": params, "spherical": True}], **settings)
    draws = [[torch.randn_like(p) for p in params] for _ in range(6)]

    def train(o: AdaRemS, grads: list[list[Tensor]]) -> list[Tensor]:
        for each in grads:
            for p, g in zip(o.param_groups[0]["params"], each, strict=True):
                p.grad = g.clone()
            o.step()
        return [p.detach() for p in o.param_groups[0]["params"]]

    train(optimizer, draws[:3])
    tensors = [optimizer.state[p]["alpha"] for p in params]
    loaded = [torch.randn_like(p) * 7 for p in params]
    for p, w in zip(params, loaded, strict=True):
        p.data.copy_(w)
    optimizer.renew_radius()
    assert all(optimizer.state[p]["alpha"] is a for p, a in zip(params, tensors, strict=True))  # captured graphs
    fresh = AdaRemS([{"params": [w.requires_grad_() for w in loaded], "spherical": True}], **settings)
    for p, w in zip(params, loaded, strict=True):
        assert torch.equal(p, w)
        fresh.state[w].update({k: v.clone() for k, v in optimizer.state[p].items() if k not in ("alpha", "radius")})
    for a, b in zip(train(optimizer, draws[3:]), train(fresh, draws[3:]), strict=True):
        torch.testing.assert_close(a, b)
    sizes = [math.hypot(*map(norm, params))] if sphere == "model" else [norm(p) for p in params]
    expected = [optimizer.state[p]["radius"].item() for p in params[: len(sizes)]]
    assert sizes == pytest.approx(expected, rel=1e-6)


def test_renewing_before_the_first_step_or_without_a_norm() -> None:
    p = torch.ones(4, requires_grad=True)
    optimizer = AdaRemS([{"params": [p], "spherical": True}], lr=0.1)
    optimizer.renew_radius()
    assert not optimizer.state.get(p)
    p.data.zero_()
    with pytest.raises(ValueError, match="Invalid spherical parameter at index 0"):
        optimizer.renew_radius()
    AdaRemS([p]).renew_radius()  # nothing on a sphere


@implementations
def test_groups_off_the_sphere_are_adarem(flags: dict[str, bool]) -> None:
    torch.manual_seed(0)
    ps = [torch.randn(4, requires_grad=True) for _ in range(2)]
    qs = [p.detach().clone().requires_grad_() for p in ps]
    ours = AdaRemS([{"params": [ps[0]], "spherical": True}, {"params": [ps[1]]}], lr=0.1, weight_decay=0.1, **flags)
    plain = AdaRem(qs, lr=0.1, weight_decay=0.1, **flags)
    for _ in range(10):
        for p, q in zip(ps, qs, strict=True):
            q.grad = p.grad = torch.randn(4)
        ours.step()
        plain.step()
    assert torch.equal(ps[1], qs[1])
    assert not torch.equal(ps[0], qs[0])


def train(model: nn.Module, optimizer: Optimizer, batches: Batches, lr: float, steps: int) -> Tensor:
    losses = []
    for k in range(steps):
        x, y = batches[k % len(batches)]
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 + math.cos(math.pi * k / steps)) / 2
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


@pytest.fixture(scope="module", params=[pytest.param(300, marks=pytest.mark.slow), 30], ids=lambda n: f"{n} steps")
def euclidean(request: pytest.FixtureRequest) -> Euclidean:
    """ResNet-18 in float64, BatchNorm's eps negligible, trained by SGD with weight decay under a cosine rate."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-30
    batches = [(torch.randn(8, 3, 32, 32, dtype=torch.float64), torch.randint(5, (8,))) for _ in range(3)]
    start = copy.deepcopy(model)
    sgd = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.05)
    return start, batches, train(model, sgd, batches, 0.01, request.param), model


@pytest.mark.parametrize("sphere, radius, flags", [("model", None, {}), ("tensor", 1.0, {"fused": True})])
def test_slr_without_adaption_is_sgd_with_weight_decay(
    euclidean: Euclidean, sphere: str, radius: float | None, flags: dict[str, bool]
) -> None:
    start, batches, expected, trained = euclidean
    model = copy.deepcopy(start)
    groups = param_groups(model, batches[0][0], weight_decay=0.05)
    optimizer = AdaRemS(groups, lr=0.01, lam=0.0, weight_decay=0.05, sphere=sphere, radius=radius, **flags)
    losses = train(model, optimizer, batches, 0.01, len(expected))
    assert (losses - expected).abs().max() < 1e-10
    assert expected[-3:].mean() < expected[:3].mean() / 2  # it did train
    # alpha is what it claims: the Euclidean network's norm over the radius
    theirs = dict(trained.named_parameters())
    for name, p in model.named_parameters():
        if "alpha" in optimizer.state[p]:
            assert norm(p) * optimizer.state[p]["alpha"].item() == pytest.approx(norm(theirs[name]), rel=1e-8)


def test_first_step_with_slr_is_the_euclidean_one_at_the_given_radius() -> None:
    """The rate at radius R is lr / ((1 - lr wd) alpha²), by hand: θ = (3, 4), R = 1, so alpha = 5."""
    p = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    optimizer = AdaRemS([{"params": [p], "spherical": True}], lr=0.5, weight_decay=0.4, radius=1.0)
    p.grad = torch.tensor([-4.0, 3.0], dtype=torch.float64)
    optimizer.step()
    rate = 0.5 / (0.8 * 25)
    moved = [0.6 + 4 * rate, 0.8 - 3 * rate]
    size = math.hypot(*moved)
    torch.testing.assert_close(p.tolist(), [m / size for m in moved], rtol=0, atol=1e-15)
    assert optimizer.state[p]["alpha"].item() == pytest.approx(0.8 * 5 * size, rel=1e-14)
