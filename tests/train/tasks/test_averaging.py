"""The averaging of NT-ASGD against the mean of its definition."""

import pytest
import torch
from torch import nn

from adarem.train.tasks.averaging import NonMonotoneAverage


def test_mean_of_all_iterates_since_it_began_and_survives_a_checkpoint() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    average = NonMonotoneAverage(model, 1)
    with average.applied():
        pass  # nothing to apply yet
    for loss in (1.0, 2.0, 3.0):
        average.observe(loss)
    iterates = [model.weight.detach().clone()]
    for step in range(6):
        average.before_step()
        with torch.no_grad():
            model.weight.add_(torch.randn(1, 3, dtype=torch.float64))
        iterates.append(model.weight.detach().clone())
        if step == 3:
            state = average.state_dict()
            average = NonMonotoneAverage(model, 1)
            average.load_state_dict(state)
    with average.applied():
        assert torch.allclose(model.weight, torch.stack(iterates).mean(dim=0), rtol=1e-12)
    assert torch.equal(model.weight, iterates[-1])
    with pytest.raises(RuntimeError), average.applied():
        raise RuntimeError("an evaluation that fails")
    assert torch.equal(model.weight, iterates[-1])


def test_it_begins_when_validation_is_worse_than_the_best_of_long_ago() -> None:
    average = NonMonotoneAverage(nn.Linear(1, 1), 3)
    for loss in (5.0, 4.0, 4.5, 4.6, 4.7):  # 4.7 is worse than 4, but 4 is not three evaluations old yet
        average.observe(loss)
        assert not average.active
    average.observe(4.65)
    assert average.active
