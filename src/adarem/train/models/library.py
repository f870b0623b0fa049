"""The paper's networks by name, and any other network of timm or torchvision."""

import sys
from collections.abc import Callable

import torch
from torch import nn

from adarem.run.config import nearest
from adarem.run.errors import UserError


def _torchvision(name: str, **settings: float) -> Callable[[int], nn.Module]:
    def build(num_classes: int) -> nn.Module:
        import torchvision

        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **settings)
        return model

    return build


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": _torchvision("resnet18"),
    "resnet50": _torchvision("resnet50"),
    "mobilenet_v2_1.0": _torchvision("mobilenet_v2"),
    "mobilenet_v2_0.5": _torchvision("mobilenet_v2", width_mult=0.5),
    "shufflenet_v2_1.0": _torchvision("shufflenet_v2_x1_0"),
    "shufflenet_v2_0.5": _torchvision("shufflenet_v2_x0_5"),
}


def check_name(name: str) -> None:
    """Raises UserError for a name that ``build_model`` does not know, with the nearest one that it does."""
    library, colon, inner = name.partition(":")
    if not colon:
        known = set(MODELS)
    elif library == "timm":
        import timm

        known = set(timm.list_models())
    elif library == "torchvision":
        import torchvision

        known = set(torchvision.models.list_models(module=torchvision.models))
    else:
        raise UserError(f"model.name={name}: unknown library {library}; write timm:NAME or torchvision:NAME")
    if (inner if colon else name) not in known:
        raise UserError(f"model.name={name}: unknown model; {nearest(inner or name, known)}")


def build_model(name: str, num_classes: int, seed: int) -> nn.Module:
    """A freshly initialised network on the CPU; the same seed gives the same weights on every machine and rank.

    Args:
        name: one of ``MODELS``, ``timm:NAME`` or ``torchvision:NAME``.
        num_classes: size of the last layer.
        seed: of the initialisation. The global generator is left as it was.

    Raises:
        UserError: unknown name.
    """
    check_name(name)
    library, colon, inner = name.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if library == "timm" and colon:
            import timm

            return timm.create_model(inner, pretrained=False, num_classes=num_classes)
        build = _torchvision(inner) if colon else MODELS[name]
        return build(num_classes)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


if __name__ == "__main__":  # `python -m adarem.train.models.library NAME ...`: `adarem plan` checks names with it
    try:
        for asked in sys.argv[1:]:
            check_name(asked)
    except UserError as e:
        sys.exit(str(e))
