"""The network of a run, from its config."""

from collections.abc import Callable

import torch
from torch import nn

from adarem.run.config import DataConfig, ModelConfig, RunConfig
from adarem.run.text_models import GptConfig, LstmConfig
from adarem.train.models.awd_lstm import AwdLstm
from adarem.train.models.gpt import Gpt
from adarem.train.models.initial_weights import load_initial_weights
from adarem.train.models.library import build_model
from adarem.train.named_networks import build_named_network


def build_network(config: RunConfig, vocabulary: int | None = None) -> nn.Module:
    """A freshly initialised network; the same seed gives the same weights on every machine and rank.

    Args:
        vocabulary: of the text that was read; None takes the largest that the config allows.

    Raises:
        UserError: an unknown name or setting; what is imported returns no network.
        Exception: whatever a function of the user's raises.
    """
    m, d = config.model, config.data
    if isinstance(m, ModelConfig):
        assert isinstance(d, DataConfig)
        if m.imported is None:
            return build_model(m.name, d.num_classes, config.seed)
        return build_named_network(m.imported, config.seed, m.settings, {"num_classes": d.num_classes})
    assert not isinstance(d, DataConfig)
    words = d.vocabulary if vocabulary is None else vocabulary
    if isinstance(m, LstmConfig):
        return _seeded(config.seed, lambda: _awd_lstm(m, words))
    if isinstance(m, GptConfig):
        return _seeded(config.seed, lambda: _gpt(m, words))
    assert m.imported is not None
    return build_named_network(m.imported, config.seed, m.settings, {"vocabulary": words, "context": m.context})


def _seeded(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    """Made under the seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _awd_lstm(m: LstmConfig, vocabulary: int) -> AwdLstm:
    return AwdLstm(
        vocabulary,
        embedding=m.embedding,
        hidden=m.hidden,
        layers=m.layers,
        dropout_words=m.dropout.words,
        dropout_input=m.dropout.input,
        dropout_hidden=m.dropout.hidden,
        dropout_output=m.dropout.output,
        dropout_recurrent=m.dropout.recurrent,
    )


def _gpt(m: GptConfig, vocabulary: int) -> Gpt:
    return Gpt(vocabulary, layers=m.layers, heads=m.heads, width=m.width, context=m.context, dropout=m.dropout)


def initialise(model: nn.Module, config: RunConfig) -> str | None:
    """Gives a network of ``build_network`` the weights that its config names; see ``load_initial_weights``."""
    m, d = config.model, config.data
    if m.init is None:
        return None
    num_classes = d.num_classes if isinstance(d, DataConfig) else None
    return load_initial_weights(model, m.init, name=m.name, sha256=m.init_sha256, num_classes=num_classes)
