"""Is there a key for Weights & Biases? Asked without importing wandb; the key itself is never read out."""

import netrc
import os


def has_wandb_key() -> bool:
    """Whether WANDB_API_KEY or ~/.netrc (`wandb login`) holds a key."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False
