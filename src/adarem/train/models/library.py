"""The catalog's image networks by name, and any other network of timm or torchvision."""

import sys

import torch
from torch import nn

from adarem.dependencies import import_problem
from adarem.run import streams
from adarem.run.build import nearest
from adarem.run.catalog import IMAGE_NETWORKS, NETWORKS
from adarem.run.errors import UserError

# Networks of torchvision with auxiliary classifiers, which are left out: their losses are no part of the training here.
_AUXILIARY = ("googlenet", "inception_v3")


def check_name(name: str) -> None:
    """Raises UserError for a name that ``build_model`` does not know, with the nearest one that it does."""
    library, colon, inner = name.partition(":")
    if not colon:
        known = set(IMAGE_NETWORKS)
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
        name: an image network of ``run.catalog``, ``timm:NAME`` or ``torchvision:NAME``.
        num_classes: size of the last layer.
        seed: of the initialisation. The global generator is left as it was.

    Raises:
        UserError: unknown name.
    """
    check_name(name)
    model: nn.Module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name.startswith("timm:"):
            import timm

            model = timm.create_model(name.removeprefix("timm:"), pretrained=False, num_classes=num_classes)
        else:
            import torchvision

            known = NETWORKS.get(name)
            builder = known.builder if known else name.removeprefix("torchvision:")
            arguments: dict[str, object] = dict(known.arguments) if known else {}
            if builder in _AUXILIARY:
                arguments |= {"aux_logits": False, "init_weights": True}  # what torchvision itself is about to change
            model = torchvision.models.get_model(builder, weights=None, num_classes=num_classes, **arguments)
    return model


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


if __name__ == "__main__":  # `python -m adarem.train.models.library NAME ...`: `adarem plan` checks names with it
    streams.prepare()
    try:
        for asked in sys.argv[1:]:
            check_name(asked)
    except UserError as e:
        sys.exit(str(e))
    except Exception as e:
        if (problem := import_problem(e)) is None:
            raise
        sys.exit(problem)
