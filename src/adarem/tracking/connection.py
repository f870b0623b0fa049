"""Whether wandb is used online, offline or not at all, and its refusals in one line."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Literal, TypeAlias

from adarem.run.config import RunConfig
from adarem.run.credentials import has_wandb_key
from adarem.run.errors import UserError

Mode: TypeAlias = Literal["online", "offline", "disabled"]

# Variables that say where wandb is, as whom one writes there, where its files lie and what is nobody's business. Any
# other would name the run: in a job that a wandb sweep or agent started, all runs of a sweep become one.
_KEPT = frozenset(
    f"WANDB_{name}"
    for name in (
        "API_KEY", "APP_URL", "BASE_URL", "CREDENTIALS_FILE", "HTTPS_PROXY", "HTTP_PROXY", "IDENTITY_TOKEN_FILE",
        "INSECURE_DISABLE_SSL", "ENTITY", "MODE", "PROJECT", "USERNAME", "USER_EMAIL",
        "FILE_PUSHER_TIMEOUT", "HTTP_TIMEOUT", "INIT_TIMEOUT", "X_SERVICE_WAIT", "_SERVICE_WAIT", "X_EXECUTABLE",
        "ARTIFACT_DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR",
        "CORE_DEBUG", "DEBUG", "DISABLE_CODE", "DISABLE_GIT", "ERROR_REPORTING", "IGNORE_GLOBS", "SAVE_CODE",
    )
)  # fmt: skip


@contextlib.contextmanager
def own_environment() -> Iterator[None]:
    """Within it, or within a function that it decorates, a run of wandb has no settings but adarem's.

    wandb reads the environment when it starts, and starts processes with it.
    """
    hidden = {k: v for k, v in os.environ.items() if k.startswith("WANDB_") and k not in _KEPT}
    for name in hidden:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="adarem-wandb-", ignore_cleanup_errors=True) as temporary:
        elsewhere = {name: temporary for name in _unwritable_folders()}
        os.environ.update(elsewhere)
        try:
            yield
        finally:
            for name in elsewhere:
                os.environ.pop(name, None)
            os.environ.update(hidden)


def _unwritable_folders() -> list[str]:
    """The variables of wandb's own folders that cannot be made where wandb would make them: a home without room."""
    home = os.path.expanduser("~")
    folders = {
        "WANDB_CACHE_DIR": os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"),
        "WANDB_DATA_DIR": os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share"),
    }
    return [name for name, base in folders.items() if name not in os.environ and not _can_be_made(base)]


def _can_be_made(folder: str) -> bool:
    place = os.path.join(folder, "wandb")
    while not os.path.lexists(place):
        place = os.path.dirname(place) or "."
    return os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK)


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
