"""Files of weights that runs start from: known by their hash, and checked in a child process to fit their networks."""

import functools
import hashlib
import os
from collections.abc import MutableMapping

from adarem.plan.child_process import ChildProcess, distinct
from adarem.run.config import RunConfig, to_dict
from adarem.run.errors import UserError
from adarem.run.text import user_path


def complete_weights(model: MutableMapping[str, object]) -> None:
    """Adds to a composed ``model`` section, in place, the absolute path of its file of weights and the file's hash.

    Raises:
        UserError: the file cannot be read, or is not the one that ``model.init_sha256`` names.
    """
    file = model.get("init")
    if file is None:
        return
    if not isinstance(file, str) or not file:
        raise UserError(f"model.init={file}: needs a file of weights, for instance model.init=./weights.pt")
    path = os.path.abspath(user_path(file))
    try:
        now = os.stat(path)
        digest = _digest(path, now.st_mtime_ns, now.st_size)
    except OSError as e:
        raise UserError(f"model.init={file}: cannot be read ({e.strerror}); name a file of weights") from None
    if model.setdefault("init_sha256", digest) != digest:
        raise UserError(f"model.init={file}: is not the file of model.init_sha256; leave that out, it is put in here")
    model["init"] = path


@functools.cache  # one file for all runs of a grid
def _digest(path: str, mtime_ns: int, size: int) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def try_weights(child: ChildProcess, configs: list[RunConfig]) -> list[str]:
    """Loads each file into each network that starts from it.

    Returns:
        What a person should know: of which networks the classifier is not in the file.

    Raises:
        UserError: a file that does not fit; the first key of it that does not.
    """
    notes = []
    for config in distinct((c for c in configs if c.model.init is not None), lambda c: (c.model, c.data)):
        note = child.ask({"try_weights": to_dict(config)}, f"model.init={config.model.init}").get("note")
        notes += [f"{config.model.label}: {note}"] if note else []
    return notes
