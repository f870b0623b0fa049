"""Optimizers that are not of the catalog, by where they are imported from: ``torch:NAdam``, ``my_package.part:Mine``.

Standard library only: what such a name means is found out by ``train.named_optimizers``, in a process with torch.
"""

import re

from adarem.run.catalog import OPTIMIZERS
from adarem.run.errors import UserError

# Heads that are not the module itself: the classes of torch.optim, the names of timm's own factory.
TORCH, TIMM = "torch", "timm"
NOT_STATED = "not stated"  # what the catalog knows of its own optimizers and nobody says of others

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def is_imported(name: str) -> bool:
    """Whether ``name`` says where to import an optimizer from; the catalog's names do not."""
    return ":" in name


def check_form(key: str, name: str) -> None:
    """Raises UserError unless ``name`` is a module and a name in it with one colon between them."""
    if not _FORM.fullmatch(name):
        raise UserError(
            f"{key}={name}: no name of an optimizer; write MODULE:NAME, for instance torch:NAdam or my_package:Mine"
        )


def default_label(name: str) -> str:
    """What tables print where nobody says: ``NAdam`` for ``torch:NAdam``, ``hybrid`` for ``my_package.hybrid:make``.

    The complete name where that is a label of the catalog.
    """
    module, _, own = name.rpartition(":")
    own = own.removeprefix("make_") if own != "make" else module.rpartition(".")[2]
    taken = {known.label.casefold() for known in OPTIMIZERS.values()}
    return name if own.casefold() in taken else own
