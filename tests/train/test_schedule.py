"""The rate against torch's own schedulers and hand-computed values."""

import pytest
import torch

from adarem.train.schedule import learning_rate


def rates(name: str, total: int, per_epoch: int, **settings) -> list[float]:
    return [learning_rate(name, 0.4, t, total_steps=total, steps_per_epoch=per_epoch, **settings) for t in range(total)]


def from_torch(total: int, make) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    scheduler = make(optimizer)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_is_torchs() -> None:
    expected = from_torch(50, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=50))
    assert rates("cosine", 50, 5) == pytest.approx(expected, abs=1e-12)


def test_step_is_torchs() -> None:
    expected = from_torch(60, lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [15, 40], gamma=0.1))
    assert rates("step", 60, 5, milestones=(3, 8), gamma=0.1) == pytest.approx(expected, rel=1e-12)


def test_paper_values() -> None:
    # 100 epochs of 1,251 steps (1,281,167 images, batch 1024): starts at the base rate, half way half, ends near 0
    total = 100 * 1251
    at = lambda t: learning_rate("cosine", 0.4, t, total_steps=total, steps_per_epoch=1251)  # noqa: E731
    assert at(0) == 0.4
    assert at(total // 2) == pytest.approx(0.2, abs=1e-9)
    assert 0 < at(total - 1) < 1e-9


def test_warmup_rises_to_the_base_rate_and_the_rest_follows() -> None:
    found = rates("cosine", 40, 4, warmup_epochs=2)
    assert found[:8] == pytest.approx([0.4 * (i + 1) / 8 for i in range(8)])
    assert found[8] == 0.4
    assert all(a > b for a, b in zip(found[8:], found[9:], strict=False))
    assert rates("constant", 10, 2) == [0.4] * 10


def test_cosine_to_a_least_rate_is_torchs() -> None:
    expected = from_torch(50, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=50, eta_min=0.1))
    assert rates("cosine", 50, 5, min_factor=0.25) == pytest.approx(expected, abs=1e-12)
