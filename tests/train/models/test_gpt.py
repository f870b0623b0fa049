"""The GPT: what it sees, what it is made of, and that it is torch's own layers."""

import math

import pytest
import torch

from adarem.train.models.gpt import Gpt
from adarem.train.models.library import count_parameters

VOCABULARY = 30


@pytest.fixture
def model() -> Gpt:
    torch.manual_seed(0)
    return Gpt(VOCABULARY, layers=2, heads=2, width=16, context=12, dropout=0.5)


@pytest.mark.parametrize("graph", [True, False])
def test_no_word_is_scored_by_a_later_one(model: Gpt, graph: bool) -> None:
    """Also on the path that torch takes without gradients."""
    model.eval()
    tokens = torch.arange(24).remainder(VOCABULARY).view(2, 12)
    with torch.set_grad_enabled(graph):
        before = model(tokens)
        for t in range(1, 12):
            changed = tokens.clone()
            changed[:, t:] = (changed[:, t:] + 7) % VOCABULARY
            after = model(changed)
            assert torch.allclose(after[:, :t], before[:, :t], atol=1e-6)
            assert not torch.allclose(after[:, t], before[:, t], atol=1e-4)
            assert torch.allclose(model(tokens[:, :t]), before[:, :t], atol=1e-6)  # shorter windows too


def test_size_initialisation_and_gradients(model: Gpt) -> None:
    width, block = 16, 12 * 16**2 + 13 * 16
    assert count_parameters(model) == VOCABULARY * width + 12 * width + 2 * block + 2 * width
    wide = Gpt(500, layers=8, heads=4, width=128, context=16)
    deviations = {n: p.std().item() for n, p in wide.named_parameters() if p.dim() > 1}
    for name, deviation in deviations.items():
        adds = name.endswith(("out_proj.weight", "linear2.weight"))
        assert deviation == pytest.approx(0.02 / math.sqrt(16) if adds else 0.02, rel=0.1), name
    tokens = torch.arange(16).view(2, 8)
    logits = wide(tokens)
    assert logits.shape == (2, 8, 500)
    # Nothing is known yet: about as good as guessing.
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten() + 100)
    assert loss.item() == pytest.approx(math.log(500), rel=0.05)
    torch.autograd.backward(loss)
    assert all(p.grad is not None for p in wide.parameters())


def test_dropout_is_of_training_alone(model: Gpt) -> None:
    tokens = torch.arange(12).view(1, 12)
    model.train()
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))
