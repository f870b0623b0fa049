"""A schedule and clipping of an optimizer's own, from its file of ``configs/optimizer`` into a run's config."""

import typing
from collections.abc import Collection, Mapping, MutableMapping

from adarem.run.build import coerce, nearest
from adarem.run.config import ScheduleConfig, TrainConfig
from adarem.run.errors import UserError


def take_own_schedule(optimizer: MutableMapping[str, object]) -> dict[str, object]:
    """Takes ``schedule`` and ``clip_grad_norm`` out of an optimizer's section, as dotted keys of a run's config.

    Raises:
        UserError: an unknown or ill-typed key.
    """
    own, where = optimizer.pop("schedule", None) or {}, "optimizer.schedule"
    if not isinstance(own, Mapping):
        raise UserError(f"{where}={own}: needs a mapping, for instance {{name: constant}}")
    hints = typing.get_type_hints(ScheduleConfig, include_extras=True)
    for key in own:
        if key not in hints:
            raise UserError(f"{where}.{key}: no such key; {nearest(str(key), hints)}")
    found = {f"schedule.{k}": coerce(v, hints[k], f"{where}.{k}") for k, v in own.items()}
    if "clip_grad_norm" in optimizer:
        hint = typing.get_type_hints(TrainConfig, include_extras=True)["clip_grad_norm"]
        found["train.clip_grad_norm"] = coerce(optimizer.pop("clip_grad_norm"), hint, "optimizer.clip_grad_norm")
    return found


def apply_own_schedule(
    raw: Mapping[str, MutableMapping[str, object]], own: Mapping[str, object], given: Collection[str]
) -> None:
    """Puts these keys into a composed config, in place.

    Args:
        given: keys that the user or the grid sets, which win; that of a section wins over all of its keys.
    """
    for key, value in own.items():
        section, _, leaf = key.partition(".")
        if section not in given and key not in given:
            raw[section][leaf] = value
