"""Is there a key for Weights & Biases, and whose runs are these? Without importing wandb; no key is ever read out."""

import netrc
import os

from adarem.run.config import RunConfig

_DEFAULT_PROJECT = "adarem"  # of configs/run.yaml


def has_wandb_key() -> bool:
    """Whether WANDB_API_KEY or ~/.netrc (`wandb login`) holds a key."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, UnicodeDecodeError, netrc.NetrcParseError):
        return False


def wandb_project(config: RunConfig) -> str:
    """The config's; where that is the default, WANDB_PROJECT's, if it is set."""
    own = config.wandb.project
    return os.environ.get("WANDB_PROJECT") or own if own == _DEFAULT_PROJECT else own


def wandb_entity(config: RunConfig) -> str | None:
    """The config's; where it has none, WANDB_ENTITY's, if it is set."""
    return config.wandb.entity or os.environ.get("WANDB_ENTITY") or None
