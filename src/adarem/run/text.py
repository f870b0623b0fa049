"""Plain text from and for a terminal."""

import os
import re
import shlex
from collections.abc import Collection, Sequence

from adarem.run.errors import UserError


def typed(key: str, value: object) -> str:
    """``key=value`` as one types it: quoted for Hydra's grammar and for the shell where it has to be."""
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9_./+@%:-]+", text):
        return f"{key}={text}"
    # Within quotes a backslash is one, but before a quote.
    quoted = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + found[2].replace('"', '\\"'), text)
    return shlex.quote(f'{key}="{quoted}"')


def user_path(text: str) -> str:
    """A path whose ``~`` is a user's home, where no shell has read it: behind an equals sign, in a file.

    Raises:
        UserError: there is no such user, or no home.
    """
    path = os.path.expanduser(text)
    if text.startswith("~") and path == text:
        raise UserError(f"{text}: no such home; name the folder, or ./{text} for one of that very name")
    return path


def listed(words: Sequence[str]) -> str:
    """``16, 6 and 2``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """A line per row, its columns two spaces apart.

    Args:
        rows: texts, as many in every row.
        right: the columns, from 0, whose texts end at the same place; those of the others start there.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def duration(seconds: float) -> str:
    """``1 d 02:03``, ``2:03:04`` or ``3:04``."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02d}:{m:02d}"
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
