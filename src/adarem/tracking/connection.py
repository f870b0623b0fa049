"""Whether wandb is used online, offline or not at all, and its refusals in one line."""

import os
from typing import Literal, TypeAlias

from adarem.run.config import RunConfig
from adarem.run.credentials import has_wandb_key
from adarem.run.errors import UserError

Mode: TypeAlias = Literal["online", "offline", "disabled"]


def wandb_mode(config: RunConfig) -> Mode:
    """The config's mode; for ``auto`` that of WANDB_MODE, else online where there is a key and offline elsewhere.

    Raises:
        UserError: WANDB_MODE holds no mode of wandb.
    """
    if config.wandb.mode != "auto":
        return config.wandb.mode
    match os.environ.get("WANDB_MODE", ""):
        case "":
            return "online" if has_wandb_key() else "offline"
        case "online" | "run" | "shared":
            return "online"
        case "offline" | "dryrun":
            return "offline"
        case "disabled":
            return "disabled"
        case other:
            raise UserError(f"WANDB_MODE={other}: no mode of wandb; give online, offline or disabled")


def sending_mode(config: RunConfig, asked: Mode | None) -> Literal["online", "offline"]:
    """``asked``, else the config's mode. Raises UserError where wandb is disabled."""
    mode = asked or wandb_mode(config)
    if mode == "disabled":
        raise UserError("wandb: disabled by wandb.mode of the run or by WANDB_MODE; give --mode=online or offline")
    return mode


def refusal(error: Exception) -> UserError:
    """The first line of an exception of wandb's, with the remedy for the usual cause."""
    first = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    return UserError(f"wandb: {first}; `wandb login` stores a key, --mode=offline needs none")
