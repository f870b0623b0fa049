"""The step itself: hand-worked values, the float64 reference, the corners of floating point."""

import math

import pytest
import torch
from torch import Tensor

from adarem import AdaRem
from tests.support import scenario

IMPLEMENTATIONS = scenario.IMPLEMENTATIONS


def parameter(values: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("flags", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def test_three_steps_worked_by_hand(flags: dict[str, bool]) -> None:
    p = parameter([1.0, -2.0, 0.5])
    optimizer = AdaRem([p], lr=0.1, beta=0.5, lam=0.5, decay_every=2, weight_decay=0.1, **flags)

    p.grad = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)  # m = 0, so b = 0
    optimizer.step()  # θ - 0.1 g - 0.01 θ
    torch.testing.assert_close(p.detach().tolist(), [0.89, -1.78, 0.495], rtol=0, atol=1e-15)
    assert optimizer.state[p]["exp_avg"].tolist() == [0.5, -1.0, 0.0]
    assert optimizer.state[p]["exp_avg_max"].item() == 1.0

    p.grad = torch.tensor([2.0, 2.0, 4.0], dtype=torch.float64)  # λ^0: b = (+0.5, -1, 0)
    optimizer.step()
    expected = [0.89 - 0.3 - 0.0089, -1.78 - 0.0 + 0.0178, 0.495 - 0.4 - 0.00495]
    torch.testing.assert_close(p.detach().tolist(), expected, rtol=0, atol=1e-15)
    assert optimizer.state[p]["exp_avg"].tolist() == [1.25, 0.5, 2.0]

    p.grad = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)  # λ^(2 // 2) = 0.5: b = (-0.625, 0, 1)
    optimizer.step()
    e = expected
    expected = [e[0] + 0.1 * (1 - 0.3125) - 0.01 * e[0], e[1] * 0.99, e[2] - 0.1 * 1.5 - 0.01 * e[2]]
    torch.testing.assert_close(p.detach().tolist(), expected, rtol=0, atol=1e-15)
    assert optimizer.state[p]["step"].item() == 3


def test_printed_form_by_hand() -> None:
    p = parameter([1.0, 0.0])
    optimizer = AdaRem([p], lr=1.0, beta=0.0, lam=1.0, eps=2.0)
    for g in ([4.0, 1.0], [1.0, -1.0]):
        p.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
    # second step: b = g m / (|g| 4 + 2) = 4/6 and -1/6
    torch.testing.assert_close(p.detach().tolist(), [-3 - (1 + 4 / 6), -1 + (1 - 1 / 6)], rtol=0, atol=1e-15)


@pytest.mark.parametrize("flags", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def test_model_scope_divides_by_the_largest_m_of_all_groups(flags: dict[str, bool]) -> None:
    a, b = parameter([1.0]), parameter([1.0])
    groups = [{"params": [a], "scope": "model"}, {"params": [b], "scope": "model"}]
    optimizer = AdaRem(groups, lr=1.0, beta=0.0, lam=1.0, **flags)
    for ga, gb in ((1.0, -4.0), (1.0, 1.0)):
        a.grad, b.grad = torch.tensor([ga]).double(), torch.tensor([gb]).double()
        optimizer.step()
    assert a.item() == 0 - 1.25  # b = 1 / 4
    assert b.item() == 5 - 0.0  # b = -4 / 4


@pytest.mark.parametrize("variant", scenario.VARIANTS)
@pytest.mark.parametrize("dtype", scenario.DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_follows_the_reference(implementation: str, dtype: torch.dtype, variant: str) -> None:
    worst = scenario.run(variant, implementation, dtype, steps=100 if dtype == torch.float32 else 40)
    for key, bound in scenario.TOLERANCE[dtype].items():
        assert worst[key] <= bound, (key, worst[key])


@pytest.mark.parametrize("flags", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e-6, 1e6, 1e18])
def test_b_does_not_depend_on_the_gradients_size(flags: dict[str, bool], size: float) -> None:
    p = torch.zeros(4, requires_grad=True)
    optimizer = AdaRem([p], lr=1.0 / size, beta=0.5, lam=1.0, **flags)
    for g in ([1.0, 2.0, -4.0, 0.0], [1.0, -1.0, -1.0, 1.0]):
        p.grad = torch.tensor(g) * size
        optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([-2.25, -1.5, 6.0, -1.0]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("flags", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def test_huge_gradient_after_none_and_after_tiny_ones(flags: dict[str, bool]) -> None:
    p = torch.zeros(3, requires_grad=True)
    optimizer = AdaRem([p], lr=1e-30, **flags)
    for size in (0.0, 1e30, 1e-37, 1e30):
        p.grad = torch.tensor([1.0, -1.0, 0.0]) * size
        optimizer.step()
        assert p.isfinite().all()
    assert p[2] == 0


@pytest.mark.parametrize("flags", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def test_b_stays_within_one(flags: dict[str, bool]) -> None:
    """Exactly: a step never exceeds (1 + λᵗ) η̂ |g|, which is what the paper's bound on a rests on."""
    torch.manual_seed(0)
    p = torch.zeros(1000, requires_grad=True)
    optimizer = AdaRem([p], lr=1.0, lam=1.0, **flags)
    for _ in range(20):
        p.data.zero_()
        p.grad = torch.randn(1000)
        optimizer.step()
        assert (p.abs() <= 2 * p.grad.abs() * (1 + 3e-7)).all()
        assert (p.detach() * p.grad <= 0).all()  # never against the gradient


@pytest.mark.parametrize("flags", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def test_lam_zero_or_beta_one_is_sgd(flags: dict[str, bool]) -> None:
    torch.manual_seed(0)
    for kwargs in ({"lam": 0.0, "decay_every": 1}, {"beta": 1.0}):
        p = torch.randn(5, dtype=torch.float64, requires_grad=True)
        q = p.detach().clone().requires_grad_()
        ours = AdaRem([p], lr=0.1, weight_decay=0.01, **kwargs, **flags)
        theirs = torch.optim.SGD([q], lr=0.1, weight_decay=0.01)
        for _ in range(20):
            p.grad = torch.randn(5, dtype=torch.float64)
            q.grad = p.grad.clone()
            ours.step()
            theirs.step()
        torch.testing.assert_close(p, q, rtol=0, atol=1e-14)


@pytest.mark.parametrize("flags", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def test_nan_gradient_shows(flags: dict[str, bool]) -> None:
    p = torch.ones(40, requires_grad=True)
    optimizer = AdaRem([p], **flags)
    p.grad = torch.ones(40)
    p.grad[33] = math.nan
    optimizer.step()
    assert optimizer.state[p]["exp_avg_max"].isnan()
    p.grad = torch.ones(40)
    optimizer.step()
    assert p.isnan().all()  # through max|m|: why an overflowing step has to be skipped
