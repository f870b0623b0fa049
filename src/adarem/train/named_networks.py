"""Networks by where they are imported from: a function or an ``nn.Module`` class, called with ``num_classes=`` for
images and with ``vocabulary=`` for text.

Only parameters that a signature names are settings, as of optimizers.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from adarem.run.build import nearest
from adarem.run.config import ModelConfig, RunConfig
from adarem.run.errors import UserError
from adarem.run.imported_names import GIVEN
from adarem.run.text_models import LmConfig
from adarem.train.imported import Source, imported, source_of


@dataclass(frozen=True)
class NamedNetwork:
    """A function or a class; its settings."""

    name: str
    make: Callable[..., object]
    settings: Mapping[str, object]  # every keyword that the signature names, with its default; inspect.Parameter.empty


def load_named_network(name: str, given: str) -> NamedNetwork:
    """The network that ``name`` says, unbuilt.

    Args:
        given: the keyword that it is called with: num_classes or vocabulary.

    Raises:
        UserError: its module cannot be imported, has no such name, it is no function or class, or does not take
            ``given``.
    """
    module, _, own = name.partition(":")
    found = imported("model", name, module, own, nn.Module)
    if not callable(found) or isinstance(found, nn.Module):
        raise UserError(
            f"model={name}: neither a function nor a class but {type(found).__name__}; name a function that makes a "
            "network, or a class of networks"
        )
    if inspect.isclass(found) and not issubclass(found, nn.Module):
        raise UserError(f"model={name}: {found.__name__} is no subclass of torch.nn.Module; name one")
    try:
        parameters = inspect.signature(found).parameters.values()
    except (ValueError, TypeError):
        raise UserError(f"model={name}: has no signature that can be read; wrap it in a function of yours") from None
    if not any(p.name == given or p.kind is p.VAR_KEYWORD for p in parameters):
        raise UserError(f"model={name}: names no {given} in its signature, with which it is called; add it")
    settings = {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return NamedNetwork(name, found, settings)


def build_named_network(name: str, seed: int, settings: Mapping[str, object], given: Mapping[str, int]) -> nn.Module:
    """A freshly initialised network, on the CPU unless within another device's context.

    Args:
        seed: of torch's generator, which is left as it was.
        settings: keywords that the signature names.
        given: what it is called with: the first one in any case, the others where the signature names them.

    Raises:
        UserError: an unknown setting, with the nearest valid one; no network is returned.
        Exception: whatever the function or the class raises.
    """
    first, *others = given
    named = load_named_network(name, first)
    for key in settings:
        if key not in named.settings:
            raise UserError(f"model.{key}: {name} names no such setting; {nearest(key, named.settings)}")
    also = {key: given[key] for key in others if key in named.settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = named.make(**{first: given[first], **also, **settings})
    if not isinstance(made, nn.Module):
        raise UserError(f"model={name}: returns {type(made).__name__}, no torch.nn.Module; return one")
    return made


def source_of_network(config: RunConfig) -> Source | None:
    """Where a run's network comes from; None for those of the catalog and of libraries, whose versions are recorded."""
    m = config.model
    if not isinstance(m, ModelConfig | LmConfig) or m.imported is None:
        return None
    return source_of(m.imported, load_named_network(m.imported, GIVEN[m.kind][0]).make)
