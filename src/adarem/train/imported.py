"""What a user names by module: imported, with one line for each way in which that fails; where its code comes from."""

import hashlib
import importlib
import importlib.metadata
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypedDict

from adarem.run.build import closest
from adarem.run.errors import UserError
from adarem.run.imported_names import Group
from adarem.train.provenance import commit_of, version_of


class Source(TypedDict):
    """What a run records of where its optimizer or its network comes from; None where it is not known."""

    name: str
    distribution: str | None
    version: str | None
    file: str | None  # the file's name
    sha256: str | None
    commit: str | None  # of the checkout in which the file lies
    dirty: bool | None


def imported(group: Group, name: str, module_name: str, own: str, base: type) -> Callable[..., object]:
    """``own`` of a module, for ``optimizer=name`` or ``model=name``.

    Args:
        base: where there is no such name, its subclasses in the module are those that are meant.

    Raises:
        UserError: the module cannot be imported, or has no such name.
    """
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name and (module_name == e.name or module_name.startswith(f"{e.name}.")):
            raise UserError(
                f"{group}={name}: no module {e.name} can be imported; install it, or set PYTHONPATH to the folder "
                "that holds it"
            ) from None
        raise UserError(f"{group}={name}: {module_name} needs the module {e.name}; install it") from None
    except Exception as e:
        first = (str(e).splitlines() or [""])[0]
        raise UserError(
            f"{group}={name}: importing {module_name} fails ({type(e).__name__}: {first}); correct it"
        ) from e
    if not hasattr(module, own):
        classes = [k for k, v in vars(module).items() if inspect.isclass(v) and issubclass(v, base)]
        names = classes or [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise UserError(f"{group}={name}: {module_name} has no {own}; {nearest_of(own, names)}")
    found: Callable[..., object] = getattr(module, own)
    return found


def nearest_of(name: str, valid: Iterable[str]) -> str:
    """The nearest valid name, to end an error message with; without regard to case; the list where it is short."""
    by_lower = {v.lower(): v for v in valid}
    if (close := closest(name.lower(), by_lower)) is not None:
        return f"did you mean '{by_lower[close]}'?"
    return "name one that it has" if len(by_lower) > 30 else f"valid: {', '.join(sorted(by_lower.values()))}"


def plain_defaults(settings: Mapping[str, object]) -> dict[str, object]:
    """Those of a signature's defaults that YAML can hold."""
    return {k: v for k, v in settings.items() if v is not inspect.Parameter.empty and _is_plain(v)}


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int) or isinstance(value, float) and math.isfinite(value)


def first_line(error: Exception) -> str:
    """Of an error's text, without the full stop; its class where it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def source_of(name: str, made: Callable[..., object]) -> Source:
    """Where ``made``, which ``name`` names, comes from."""
    module = inspect.getmodule(made)
    top = (module.__name__ if module else "").partition(".")[0]
    names = importlib.metadata.packages_distributions().get(top, [])
    distribution = names[0] if names else None
    version = version_of(distribution) if distribution else None
    try:
        file = Path(inspect.getsourcefile(made) or "")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, TypeError):
        return Source(
            name=name, distribution=distribution, version=version, file=None, sha256=None, commit=None, dirty=None
        )
    commit = commit_of(file.parent)
    return Source(
        name=name, distribution=distribution, version=version, file=file.name, sha256=digest,
        commit=commit.hash, dirty=commit.dirty,
    )  # fmt: skip
