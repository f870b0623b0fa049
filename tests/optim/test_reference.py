"""The oracle of all other tests: values worked out by hand, which no plausible misreading of the paper gives."""

import inspect
import math
import types

import pytest
import torch

from adarem.optim import reference
from tests.support import ROOT

# One step after another on three elements: gradients, then the parameters after the step, worked out by hand for
# lr 0.1, beta 0.5, lam 0.5, decay_every 2, weight_decay 0.1.
BY_HAND = [
    ([1.0, -2.0, 0.0], [0.89, -1.78, 0.495]),  # m = 0, so b = 0: θ - 0.1 g - 0.01 θ
    # m = (0.5, -1, 0), max 1; λ^0: b = (0.5, -1, 0)
    ([2.0, 2.0, 4.0], [0.89 - 0.3 - 0.0089, -1.78 - 0.0 + 0.0178, 0.495 - 0.4 - 0.00495]),
    # m = (1.25, 0.5, 2), max 2; λ^(2 // 2) = 0.5: λ b = (-0.3125, 0, 0.5)
    ([-1.0, 0.0, 1.0], [0.5811 * 0.99 + 0.1 * 0.6875, -1.7622 * 0.99, 0.09005 * 0.99 - 0.1 * 1.5]),
]


def error_of_adarem(module: types.ModuleType) -> float:
    """Largest difference from the values by hand."""
    p = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    optimizer = module.AdaRem([p], lr=0.1, beta=0.5, lam=0.5, decay_every=2, weight_decay=0.1)
    worst = 0.0
    for grad, expected in BY_HAND:
        p.grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
        worst = max(worst, *(abs(a - b) for a, b in zip(p.tolist(), expected, strict=True)))
    return worst


def error_of_adarem_s(module: types.ModuleType) -> float:
    """The same for two steps on the sphere, with b in the second: θ = (3, 4), R = 1, so alpha = 5."""
    p = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    groups = [{"params": [p], "spherical": True}]
    optimizer = module.AdaRemS(groups, lr=0.5, lam=0.5, weight_decay=0.4, beta=0.5, radius=1.0)
    theta, alpha, worst = [0.6, 0.8], 5.0, 0.0
    # m after the first step is (-2, 1.5); λ^1 b = 0.5 (1, -0.75) in the second
    for grad, lam_b in (([-4.0, 3.0], [0.0, 0.0]), ([-1.0, -2.0], [0.5, -0.375])):
        p.grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
        rate = 0.5 / (0.8 * alpha**2)
        moved = [x - rate * (1 + b) * g for x, b, g in zip(theta, lam_b, grad, strict=True)]
        size = math.hypot(*moved)
        theta, alpha = [x / size for x in moved], 0.8 * alpha * size
        worst = max(worst, *(abs(a - b) for a, b in zip(p.tolist(), theta, strict=True)))
        worst = max(worst, abs(optimizer.state[p]["alpha"].item() - alpha))
    return worst


def test_values_by_hand() -> None:
    assert error_of_adarem(reference) < 1e-15
    assert error_of_adarem_s(reference) < 1e-14


def mutated(old: str, new: str) -> types.ModuleType:
    source = inspect.getsource(reference)
    assert source.count(old) == 1, old
    module = types.ModuleType("mutated")
    exec(source.replace(old, new), module.__dict__)
    return module


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("g.sign() * m / max_m", "-g.sign() * m / max_m"),
        ("g.sign() * m / max_m", "m.sign() * g / g.abs().max()"),
        ("g.sign() * m / max_m", "g.sign() * m"),
        ("else m.abs().max()", "else m.abs().mean()"),
        ("else m.abs().max()", "else m.max()"),
        ("p -= eta * g + lr * decay * p", "p -= eta * g + eta * decay * p"),
        ("p -= eta * g + lr * decay * p", "p -= eta * (g + decay * p)"),
        ("p -= eta * g + lr * decay * p", "p -= eta * g"),
        ('group["lam"] ** k', 'group["lam"] ** (2 * k)'),
        ('group["lam"] ** k', 'group["lam"] ** t'),
        ("((t + 1) % group", "((t + 2) % group"),
        ('group["beta"] * m + (1 - group["beta"]) * g', "g"),
    ],
)
def test_a_misreading_of_algorithm_1_shows(old: str, new: str) -> None:
    """Among them those that torch's own suites cannot see: a flipped sign, decay by η, the mean, λ squared."""
    assert error_of_adarem(mutated(old, new)) > 1e-3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('["alpha"] ** 2) if', '["alpha"]) if'),
        ("lr / ((1 - lr * decay) * self", "lr / (self"),
        ('["alpha"] * (1 - lr * decay) * growth', '["alpha"] * growth'),
        ("                p /= growth\n", ""),
        ('rate, 0.0 if group["slr"] else decay)', "rate, decay)"),
    ],
)
def test_a_misreading_of_algorithm_2_shows(old: str, new: str) -> None:
    assert error_of_adarem_s(mutated(old, new)) > 1e-3


def test_printed_form_by_hand() -> None:
    p = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = reference.AdaRem([p], lr=1.0, beta=0.0, lam=1.0, eps=2.0)
    for g in ([4.0, 1.0], [1.0, -1.0]):
        p.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
    # second step: b = g m / (|g| 4 + 2) = 4/6 and -1/6
    torch.testing.assert_close(p.tolist(), [-3 - (1 + 4 / 6), -1 + (1 - 1 / 6)], rtol=0, atol=1e-15)


def test_a_parameter_without_gradient_stays_on_its_sphere() -> None:
    a, b = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (3.0, 4.0))
    optimizer = reference.AdaRemS([{"params": [a, b], "spherical": True}], lr=0.1)
    a.grad = torch.ones_like(a)
    optimizer.step()
    assert b.item() == 4.0
    assert a.item() == pytest.approx(3.0)


def test_a_misspelt_setting_is_refused() -> None:
    for cls in (reference.AdaRem, reference.AdaRemS):
        with pytest.raises(TypeError, match="lrr"):
            cls([torch.ones(1, requires_grad=True)], lrr=3)


def test_it_can_be_copied() -> None:
    """One short file that needs nothing but torch's public names (test_compat.py looks at the names)."""
    source = (ROOT / "src/adarem/optim/reference.py").read_text()
    assert "from adarem" not in source and "import adarem" not in source
    assert len(source.splitlines()) <= 120
