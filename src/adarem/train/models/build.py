"""The network of a run, from its config."""

from torch import nn

from adarem.run.config import DataConfig, ModelConfig, RunConfig
from adarem.train.models.awd_lstm import AwdLstm
from adarem.train.models.initial_weights import load_initial_weights
from adarem.train.models.library import build_model
from adarem.train.named_networks import build_named_network


def build_network(config: RunConfig) -> nn.Module:
    """A freshly initialised network; the same seed gives the same weights on every machine and rank.

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
    return AwdLstm(d.vocabulary, embedding=m.embedding, hidden=m.hidden, layers=m.layers)


def initialise(model: nn.Module, config: RunConfig) -> str | None:
    """Gives a network of ``build_network`` the weights that its config names; see ``load_initial_weights``."""
    m, d = config.model, config.data
    if m.init is None:
        return None
    num_classes = d.num_classes if isinstance(d, DataConfig) else None
    return load_initial_weights(model, m.init, name=m.name, sha256=m.init_sha256, num_classes=num_classes)
