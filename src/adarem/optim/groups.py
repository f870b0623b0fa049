"""Parameter groups: which parameters are spherical, which decay; made here for every optimizer alike."""

import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Any

from torch import nn

from adarem.optim.invariance import check_initialised, scale_invariant

__all__ = ["kinds_of_parameters", "param_groups", "scale_invariant"]


def kinds_of_parameters(model: nn.Module) -> dict[str, set[str]]:
    """What each parameter is, by the module that holds it and by its own name; its number of dimensions does not count.

    ``norm``: of a module whose class is called so or derives from one: BatchNorm2d, RMSNorm. ``bias``: its name has the
    word bias (in_proj_bias, bias_hh_l0). ``embedding``: of torch's embeddings, or its name has embed (pos_embed). A
    parameter that several modules share is all that it is in any of them.

    Returns:
        dict[str, set[str]]: by the names of ``model.named_parameters()``; empty sets for what is of no such kind.
    """
    kinds: dict[int, set[str]] = {}
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            kinds.setdefault(id(p), set()).update(_kinds(module, name))
        # torch's parametrizations hold a weight as `parametrizations.weight.original0`.
        for name, parametrization in getattr(module, "parametrizations", {}).items():
            for p in parametrization.parameters():
                kinds.setdefault(id(p), set()).update(_kinds(module, name))
    return {name: kinds[id(p)] for name, p in model.named_parameters()}


def _kinds(module: nn.Module, name: str) -> Iterator[str]:
    if any(re.search(r"Norm(?![a-z])", cls.__name__) for cls in type(module).__mro__):
        yield "norm"
    if "bias" in name.split("_"):
        yield "bias"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) or "embed" in name:
        yield "embedding"


def param_groups(
    model: nn.Module,
    example_input: object = None,
    *,
    spherical: Collection[str] | None = None,
    weight_decay: float = 0.0,
    decay_norm_and_bias: bool = True,
    no_decay: Collection[str] = (),
) -> list[dict[str, object]]:
    """Parameter groups for an optimizer: spherical or not, decayed or not. Every trainable parameter is in one group.

    Args:
        model (nn.Module): the network.
        example_input (Tensor, tuple, dict or other, optional): see ``scale_invariant``, which finds the spherical
            parameters with it; without it, and without ``spherical``, no group is marked spherical.
        spherical (Collection[str], optional): names of the spherical parameters, in place of an example: what
            ``scale_invariant`` found before the model was sharded, or a list of one's own.
        weight_decay (float, optional): of the groups that decay. (default: 0)
        decay_norm_and_bias (bool, optional): False gives parameters with at most one dimension (norm weights, biases)
            a weight decay of 0. (default: True)
        no_decay (Collection[str], optional): of "bias", "norm" and "embedding": the kinds of parameters that get a
            weight decay of 0, see ``kinds_of_parameters``. (default: none)

    Returns:
        list[dict]: non-empty groups with ``params``, ``param_names`` (which parameters they are), ``weight_decay`` and,
        if an example input or names were given, ``spherical``. Empty for a model with nothing to train.

    Raises:
        ValueError: what ``scale_invariant`` raises; a name in ``spherical`` that no trainable parameter has; names and
            an example input together; a lazy module that is not initialised.
    """
    check_initialised(model)
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    marked = example_input is not None or spherical is not None
    on_sphere = set(_spherical(model, example_input, spherical))
    kinds = kinds_of_parameters(model) if no_decay else {}
    for name, p in trainable:
        decays = (decay_norm_and_bias or p.dim() > 1) and not kinds.get(name, set()) & set(no_decay)
        key = (name in on_sphere, decays)
        group = groups.setdefault(
            key, {"params": [], "param_names": [], "weight_decay": weight_decay if decays else 0.0}
        )
        if marked:
            group["spherical"] = key[0]
        group["params"].append(p)
        group["param_names"].append(name)
    ids = [id(p) for group in groups.values() for p in group["params"]]
    assert len(ids) == len(set(ids)) and set(ids) == {id(p) for _, p in trainable}, "a parameter is missing or doubled"
    return [dict(groups[key]) for key in sorted(groups, reverse=True)]


def _spherical(model: nn.Module, example_input: object, names: Collection[str] | None) -> Collection[str]:
    if names is None:
        return () if example_input is None else scale_invariant(model, example_input)
    if example_input is not None:
        raise ValueError("spherical: an example_input finds these names too; give one of the two")
    if isinstance(names, str):
        raise ValueError(f"spherical: {names!r} is one name; give a list of names")
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    for name in names:
        if name not in trainable:
            near = get_close_matches(name, trainable, 1)
            raise ValueError(
                f"spherical: no trainable parameter has the name {name!r}; "
                + (f"the nearest is {near[0]!r}" if near else "give names of model.named_parameters()")
            )
    return names
