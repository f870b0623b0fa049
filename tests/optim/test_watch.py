"""b as it is read out, against the float64 reference, and against the step that then takes it."""

import pytest
import torch
from torch import Tensor

from adarem import AdaRem, AdaRemS
from adarem.optim import agreement, reference

SETTINGS = [
    {},
    {"eps": 1e-3},
    {"scope": "model"},
    {"maximize": True},
    {"lam": 0.5, "decay_every": 3},
    {"lam": 0.9, "decay_every": 1, "fused": True},
    {"foreach": True, "lam": 0.9, "decay_every": 2},
]


def params_of(draw: torch.Generator, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shapes = [(7, 5), (4, 3, 3, 3), (9,), (1,), (), (0, 3)]
    return [torch.randn(s, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def draw_gradients(params: list[Tensor], draw: torch.Generator) -> None:
    for p in params:
        g = torch.randn(p.shape, generator=draw, dtype=torch.float64)
        p.grad = torch.where(torch.rand(p.shape, generator=draw) < 0.1, 0.0, g).to(p.dtype)


def expected(truth: reference.AdaRem, p: Tensor) -> Tensor:
    """λᵏ b of the reference, from what its next step adds to the gradient: η g = lr (g + λᵏ b g)."""
    (group,) = (g for g in truth.param_groups if any(p is q for q in g["params"]))
    state, g = truth.state[p], -p.grad if group["maximize"] else p.grad
    everyone = [truth.state[q]["m"].abs().max() for h in truth.param_groups for q in h["params"] if q.numel()]
    maximum = torch.stack(everyone).max() if group["scope"] == "model" else state["m"].abs().max()
    if group["eps"] > 0:
        b = g * state["m"] / (g.abs() * maximum + group["eps"])
    else:
        b = torch.where((g == 0) | (state["m"] == 0), torch.zeros_like(g), g.sign() * state["m"] / maximum)
    return group["lam"] ** state["k"] * b


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_b_is_the_papers(settings: dict, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(3)
    params = params_of(draw, dtype)
    exact = [p.detach().double().clone().requires_grad_() for p in params]
    plain = {k: v for k, v in settings.items() if k not in ("fused", "foreach")}
    optimizer = AdaRem(params, lr=0.05, **settings)
    truth = reference.AdaRem(exact, lr=0.05, **plain)
    for step in range(7):
        draw_gradients(params, draw)
        for p, e in zip(params, exact, strict=True):
            e.grad = p.grad.double()
        found = {a.param: a.weight * a.b for a in agreement(optimizer)}
        assert set(found) == {p for p in params if p.numel()}
        for p, e in zip(params, exact, strict=True):
            if p.numel():
                want = expected(truth, e) if step else torch.zeros_like(e)
                assert found[p].shape == p.shape and (found[p].double() - want).abs().max() < (
                    1e-14 if dtype == torch.float64 else 2e-6
                )
        optimizer.step()
        truth.step()


@pytest.mark.parametrize("spherical", [False, True])
def test_the_step_takes_that_b(spherical: bool) -> None:
    """θ moves by lr (1 + λᵏ b) g: read back from the weights; on a sphere by its direction."""
    draw = torch.Generator().manual_seed(5)
    p = torch.randn(6, 5, generator=draw, dtype=torch.float64).requires_grad_()
    optimizer = AdaRemS([{"params": [p], "spherical": spherical}], lr=0.01, lam=0.9, decay_every=2)
    for _ in range(5):
        draw_gradients([p], draw)
        before = p.detach().clone()
        (a,) = agreement(optimizer)
        size = before.norm()
        moved = (
            before
            - 0.01
            / (optimizer.state[p]["alpha"] ** 2 if "alpha" in optimizer.state[p] else 1)
            * (1 + a.weight * a.b)
            * p.grad
        )
        optimizer.step()
        want = moved * (size / moved.norm()) if spherical else moved
        assert (p - want).abs().max() < 1e-14


def test_nothing_is_changed_and_nothing_made() -> None:
    draw = torch.Generator().manual_seed(1)
    params = params_of(draw)
    optimizer = AdaRem(params, lr=0.1)
    draw_gradients(params, draw)
    list(agreement(optimizer))
    assert not optimizer.state
    optimizer.step()
    before = [t.clone() for p in params for t in (p, p.grad, *optimizer.state.get(p, {}).values())]
    list(agreement(optimizer))
    after = [t for p in params for t in (p, p.grad, *optimizer.state.get(p, {}).values())]
    assert all(map(torch.equal, before, after))


def test_a_changed_decay_every_counts_from_the_next_step_on() -> None:
    p = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = AdaRem([p], lr=0.0, lam=0.5, decay_every=2)
    for _ in range(4):
        p.grad = torch.ones_like(p)
        optimizer.step()
    optimizer.param_groups[0]["decay_every"] = 1  # 2 multiplications are done and stay done
    assert [a.weight.item() for a in agreement(optimizer)] == [0.25]
    optimizer.step()
    assert [a.weight.item() for a in agreement(optimizer)] == [0.125]


def test_gradients_that_are_still_scaled() -> None:
    p = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimizer = AdaRem([p], lr=0.1, eps=0.5)
    p.grad = torch.tensor([0.3, 0.2], dtype=torch.float64)
    optimizer.step()
    (plain,) = agreement(optimizer)
    p.grad *= 1024
    (scaled,) = agreement(optimizer, grad_scale=torch.tensor(1024.0))
    assert torch.allclose(plain.b, scaled.b, rtol=1e-14, atol=0) and 0 < plain.b.min() < 0.5


def test_complex_parameters_and_frozen_ones() -> None:
    p, frozen = torch.ones(2, dtype=torch.complex64, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = AdaRem([p, frozen], lr=0.1)
    p.grad = torch.tensor([1 + 2j, -1 - 1j])
    optimizer.step()
    (a,) = agreement(optimizer)
    assert a.param is p and torch.equal(a.b, torch.tensor([[0.5, 1.0], [0.5, 0.5]]))
