"""Keys that have one value in a grid, whatever a comma in it looks like: where runs are, and who watches them."""

import re

from hydra.core.override_parser.types import Override

from adarem.run.errors import UserError

_EITHER_OR = ("cluster.partition", "cluster.aux_partition")
_LISTS = ("cluster.extra", "cluster.aux_extra")


def literal(word: str) -> str:
    """An override as Hydra takes it: ``cluster.partition=gpu,cpu`` is one value, of which Slurm takes what is free."""
    key, equals, value = word.partition("=")
    one = equals and key.lstrip("+") in _EITHER_OR and "," in value and re.fullmatch(r"[\w,.-]+", value)
    return f"{key}='{value}'" if one else word


def check_axis(override: Override) -> None:
    """Raises UserError for an axis over a key that is none."""
    key = override.get_key_element().lstrip("+~")
    if override.is_sweep_override() and "." in key and is_no_axis(key):
        several = f"; of several write a list, {key}=[...]" if key in _LISTS else ""
        line = f"{override.input_line}: one value at a time, since {key.split('.')[0]}.* is no axis of a grid{several}"
        raise UserError(line)


def is_no_axis(key: str) -> bool:
    """Whether a key says where runs are or who watches them, and so cannot differ within a grid."""
    return key.split(".")[0] in ("cluster", "wandb")
