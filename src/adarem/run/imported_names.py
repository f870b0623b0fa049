"""Optimizers and networks that are not of the catalog, by where they are imported from: ``torch:NAdam``,
``my_package.part:Mine``.

Standard library only: what such a name means is found out in ``train``, in a process with torch.
"""

import re
from collections.abc import Mapping
from typing import TypeAlias

from adarem.run.catalog import NETWORKS, OPTIMIZERS
from adarem.run.errors import UserError

Group: TypeAlias = str  # of a config: optimizer or model

# Heads that are not the module itself: the classes of torch.optim, the names of timm's own factory; networks by the
# names of their libraries.
TORCH, TIMM = "torch", "timm"
NETWORK_LIBRARIES = ("timm", "torchvision")
# What a network is called with, by the kind of its data; no settings. The first in any case, others where it names
# them.
GIVEN: Mapping[str, tuple[str, ...]] = {"images": ("num_classes",), "text": ("vocabulary", "context")}
NOT_STATED = "not stated"  # what the catalog knows of its own optimizers and nobody says of others

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_LIBRARYS = re.compile(rf"({'|'.join(NETWORK_LIBRARIES)}):[\w.]+", re.ASCII)
_WORDS: Mapping[Group, tuple[str, str]] = {
    "optimizer": ("an optimizer", "torch:NAdam or my_package:Mine"),
    "model": ("a network", "timm:resnet10t, torchvision:regnet_y_400mf or my_package:make_network"),
}


def is_imported(name: str) -> bool:
    """Whether ``name`` says where to import something from; the catalog's names do not."""
    return ":" in name


def is_own_network(name: str) -> bool:
    """Whether ``name`` is that of a function or class that makes a network, in a module that is none of the libraries'
    names: ``my_package:make_network``."""
    return is_imported(name) and name.partition(":")[0] not in NETWORK_LIBRARIES


def check_form(key: str, name: str, group: Group = "optimizer") -> None:
    """Raises UserError unless ``name`` is a module and a name in it with one colon between them."""
    if not _FORM.fullmatch(name) and not (group == "model" and _LIBRARYS.fullmatch(name)):
        what, examples = _WORDS[group]
        raise UserError(f"{key}={name}: no name of {what}; write MODULE:NAME, for instance {examples}")


def plain(label: str) -> str:
    """What is left of a label for comparing it: letters and digits, without regard to case."""
    return re.sub(r"[\W_]+", "", label).casefold()


def default_label(name: str, group: Group = "optimizer") -> str:
    """What tables print where nobody says: ``NAdam`` for ``torch:NAdam``, ``hybrid`` for ``my_package.hybrid:make``.

    The complete name where that is a label of the catalog, and for a library's network.
    """
    module, _, own = name.rpartition(":")
    own = own.removeprefix("make_") if own != "make" else module.rpartition(".")[2]
    known = OPTIMIZERS if group == "optimizer" else NETWORKS
    taken = {plain(of_catalog.label) for of_catalog in known.values()}
    return name if plain(own) in taken or group == "model" and not is_own_network(name) else own
