"""BrakedSGD against its equation in float64, entry by entry, against torch's SGD, and resumed from its state dict."""

import copy
import random

import pytest
import torch

from braked import BrakedSGD

STEPS = 50


def gradients(seed: int, size: int) -> list[list[float]]:
    """Of both signs, so that the momentum brakes often."""
    drawn = random.Random(seed)
    return [[drawn.uniform(-1.0, 1.0) for _ in range(size)] for _ in range(STEPS)]


def reference(theta: list[float], of_steps: list[list[float]], lr, momentum, brake, weight_decay) -> list[float]:
    """The equation, as slowly as it is written."""
    theta, m = list(theta), [0.0] * len(theta)
    for gradient in of_steps:
        for i, raw in enumerate(gradient):
            g = raw + weight_decay * theta[i]
            s = brake if g * m[i] < 0 else 1.0
            m[i] = s * momentum * m[i] + g
            theta[i] = theta[i] - lr * m[i]
    return theta


def steps(optimizer: torch.optim.Optimizer, p: torch.Tensor, of_steps: list[list[float]]) -> None:
    for gradient in of_steps:
        p.grad = torch.tensor(gradient, dtype=p.dtype)
        optimizer.step()


@pytest.mark.parametrize("brake", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_is_its_equation(brake: float, weight_decay: float) -> None:
    settings = {"lr": 0.05, "momentum": 0.9, "brake": brake, "weight_decay": weight_decay}
    start, of_steps = [0.5, -1.0, 2.0, 0.0, 3.0], gradients(1, 5)
    p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    steps(BrakedSGD([p], **settings), p, of_steps)
    expected = torch.tensor(reference(start, of_steps, **settings), dtype=torch.float64)
    torch.testing.assert_close(p.data, expected, rtol=1e-13, atol=1e-13)


def test_without_a_brake_it_is_sgd_with_momentum() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
    steps(BrakedSGD([ours], lr=0.1, brake=1.0, weight_decay=0.01), ours, gradients(2, 4))
    steps(torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.01), theirs, gradients(2, 4))
    torch.testing.assert_close(ours, theirs)


def test_it_resumes_to_the_same_bits() -> None:
    of_steps = gradients(3, 4)
    p = torch.nn.Parameter(torch.ones(4))
    optimizer = BrakedSGD([p], lr=0.1)
    steps(optimizer, p, of_steps[:20])
    q = torch.nn.Parameter(p.detach().clone())
    resumed = BrakedSGD([q], lr=1.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch shares the tensors
    assert list(optimizer.state_dict()["state"][0]) == ["momentum"]
    steps(optimizer, p, of_steps[20:])
    steps(resumed, q, of_steps[20:])
    assert torch.equal(p, q)


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"lr": 0.1, "brake": 2.0}, {"lr": 0.1, "momentum": 1.0}])
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        BrakedSGD([torch.nn.Parameter(torch.ones(1))], **wrong)
