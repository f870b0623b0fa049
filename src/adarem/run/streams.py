"""A process's standard streams and its encoding of text, whatever locale, terminal or closed stream it starts with.

Every entry point calls ``prepare`` before anything else. Standard library only.
"""

import codecs
import contextlib
import io
import os
import re
import sys
from typing import TextIO

# What moves a cursor, recolours or rings: all control characters but tab and line feed, and those that turn the
# direction of writing, with which a name can read as another one.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_PLAIN = {"—": "-", "–": "-", "−": "-", "×": "x", "·": "-", "…": "~", "’": "'", "‘": "'", "“": '"', "”": '"', "≥": ">"}
_PLAIN |= {"≤": "<", "≈": "~", "±": "~", "│": "|", "─": "-", "━": "-"}
_ERRORS = "adarem-plain"


def plain(text: str) -> str:
    """The text with its control characters spelt out (``\\x1b``): what others named cannot steer a terminal."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """``plain``, with line feeds and tabs spelt out too: a name of one line stays in its row."""
    return plain(text).replace("\n", "\\n").replace("\t", "\\t")


def prepare() -> None:
    """Opens closed standard streams on /dev/null, turns to UTF-8, and lets no character that is shown be fatal.

    May not return: a process whose files and names are not read as UTF-8 starts itself once more.
    """
    _open_closed()
    _turn_to_utf8()
    codecs.register_error(_ERRORS, _replaced)
    sys.stdout, sys.stderr = _shown(sys.stdout), _shown(sys.stderr)


def terminal(stream: TextIO) -> TextIO:
    """What a library draws on that writes escapes itself; it is given ``plain`` text to draw."""
    return stream.raw_text if isinstance(stream, _PlainText) else stream


class _PlainText(io.TextIOWrapper):
    """Writes no control character but tab, line feed, and a carriage return where a progress bar begins its line."""

    def __init__(self, before: io.TextIOWrapper) -> None:
        super().__init__(
            before.buffer, before.encoding, _ERRORS,
            line_buffering=before.line_buffering, write_through=before.write_through,
        )  # fmt: skip
        self.raw_text: TextIO = before  # kept, as its end would close the file

    def write(self, text: str) -> int:
        begins = text.startswith("\r")
        super().write("\r" * begins + plain(text[begins:]))
        return len(text)


def _shown(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, _PlainText):  # a test's, or prepared before
        return stream
    shown = _PlainText(stream)
    stream.reconfigure(errors=_ERRORS, write_through=True)  # nothing waits in it, so that the order stays
    return shown


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """An error handler of a codec: one character for each that an encoding lacks, so that columns stay in line."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end


def _open_closed() -> None:
    """Otherwise the next file that is opened takes a stream's place, and what is printed is written into it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
            closed = getattr(sys, name) is None
        except OSError:
            closed = True
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if closed:
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _turn_to_utf8() -> None:
    """Python's UTF-8 mode, in which files, names and other programs' output are UTF-8, here and in what is started.

    A process's own encoding of file names is fixed once it runs.
    """
    if sys.flags.utf8_mode or _is_utf8(sys.getfilesystemencoding()) and _is_utf8(_locale_encoding()):
        return
    if os.environ.get("PYTHONUTF8") == "1" or not sys.executable:  # it was tried
        return
    os.environ["PYTHONUTF8"] = "1"
    if isinstance(sys.stdout, io.TextIOWrapper):  # the terminal shows what it can, as before
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    with contextlib.suppress(OSError):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _locale_encoding() -> str:
    import locale

    return locale.getencoding()


def _is_utf8(encoding: str) -> bool:
    try:
        return codecs.lookup(encoding).name == "utf-8"
    except LookupError:
        return False
