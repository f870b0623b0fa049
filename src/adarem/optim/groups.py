"""Parameter groups: which parameters are scale-invariant, which decay; made here for every optimizer alike."""

import copy
import re
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from adarem.optim import compat

# On a scale-invariant parameter |⟨∇L, θ⟩| / (‖∇L‖ ‖θ‖) is float64 rounding, about 1e-15; on others it is a generic
# cosine. Gradients smaller than this share of the largest are rounding themselves (a bias in front of a BatchNorm).
_COSINE = 1e-9
_SHARE = 1e-9
_PIXELS = 200_000  # values a channel that the example batch aims at; see _batch


def scale_invariant(model: nn.Module, example_input: Tensor) -> list[str]:
    """Names of the trainable weights whose length the network's output does not see.

    For these ⟨∇L, θ⟩ = 0 for every loss L (property 1 in section 3.4 of the paper). One backward pass in float64
    through a copy with random weights decides; the model, its gradients, its BatchNorm statistics and torch's random
    state stay as they are. The answer depends only on the architecture and the input's shape, so all ranks agree.

    Parameters of one dimension are left out: the gain of a BatchNorm that only a convolution separates from the next
    one is invariant as well (in MobileNetV2 and ShuffleNetV2), but gains and biases are not what the paper rescales.

    Args:
        model (nn.Module): any network; BatchNorms decide with the statistics of the batch, as in training.
        example_input (Tensor): a batch that the network takes, of any batch size; if it is floating, only its shape
            counts.

    Returns:
        list[str]: in the order of ``model.named_parameters()``; empty for a network without normalisation.
    """
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        probe = copy.deepcopy(model).to(torch.float64).eval()  # eval: no dropout
        for module in probe.modules():
            if isinstance(module, compat.BatchNorm):
                module.train()
                module.eps = 1e-30  # eps is what breaks the invariance, by eps / variance
        draw = torch.Generator().manual_seed(0)
        params = {n: p for n, p in probe.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for p in params.values():  # a zero or constant initial value would look invariant by chance
                fan_in = max(p[0].numel(), 1) if p.dim() > 1 else 4
                p.copy_(torch.randn(p.shape, generator=draw, dtype=torch.float64) / fan_in**0.5)
        out = _tensor(probe(_batch(example_input, draw).to(device)))
        target = torch.randn(out.shape, generator=draw, dtype=torch.float64).to(device)
        grads = torch.autograd.grad((out * target).sum(), list(params.values()), allow_unused=True)
    dots, sizes = {}, {}
    for (name, p), g in zip(params.items(), grads, strict=True):
        if g is not None and p.numel():
            dots[name] = abs((g * p.detach()).sum().item())
            sizes[name] = (g.norm() * p.detach().norm()).item()
    largest = max(sizes.values(), default=0.0)
    return [n for n in dots if params[n].dim() > 1 and sizes[n] > _SHARE * largest and dots[n] < _COSINE * sizes[n]]


def _batch(example: Tensor, draw: torch.Generator) -> Tensor:
    """Enough samples that BatchNorm over 1 × 1 pixels still has a spread: 4 large images, up to 16 small ones."""
    if not example.is_floating_point():
        return example
    n = min(16, max(4, _PIXELS // max(1, example[0].numel())))
    return torch.randn((n, *example.shape[1:]), generator=draw, dtype=torch.float64)


def _tensor(output: Any) -> Tensor:
    """The network's output, or the first tensor in it."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output


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
    example_input: Tensor | None = None,
    *,
    weight_decay: float = 0.0,
    decay_norm_and_bias: bool = True,
    no_decay: Collection[str] = (),
) -> list[dict[str, object]]:
    """Parameter groups for an optimizer: spherical or not, decayed or not. Every trainable parameter is in one group.

    Args:
        model (nn.Module): the network.
        example_input (Tensor, optional): see ``scale_invariant``, which finds the spherical parameters with it;
            without it no group is marked spherical.
        weight_decay (float, optional): of the groups that decay. (default: 0)
        decay_norm_and_bias (bool, optional): False gives parameters with at most one dimension (norm weights, biases)
            a weight decay of 0. (default: True)
        no_decay (Collection[str], optional): of "bias", "norm" and "embedding": the kinds of parameters that get a
            weight decay of 0, see ``kinds_of_parameters``. (default: none)

    Returns:
        list[dict]: non-empty groups with ``params``, ``param_names`` (which parameters they are), ``weight_decay`` and,
        if an example input was given, ``spherical``.
    """
    spherical = set() if example_input is None else set(scale_invariant(model, example_input))
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    kinds = kinds_of_parameters(model) if no_decay else {}
    for name, p in trainable:
        decays = (decay_norm_and_bias or p.dim() > 1) and not kinds.get(name, set()) & set(no_decay)
        key = (name in spherical, decays)
        group = groups.setdefault(
            key, {"params": [], "param_names": [], "weight_decay": weight_decay if decays else 0.0}
        )
        if example_input is not None:
            group["spherical"] = key[0]
        group["params"].append(p)
        group["param_names"].append(name)
    ids = [id(p) for group in groups.values() for p in group["params"]]
    assert len(ids) == len(set(ids)) and set(ids) == {id(p) for _, p in trainable}, "a parameter is missing or doubled"
    return [dict(groups[key]) for key in sorted(groups, reverse=True)]
