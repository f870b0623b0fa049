"""Reports hold names that others gave, and other programs read them: what those would execute or follow is text."""

import csv
import io
import re

from adarem.run.streams import plain

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def harmless(name: str, text: str) -> str:
    """The text of a file for the programs that open it, by the ending of the file's ``name``."""
    if name.endswith(".csv"):
        return _csv(text)
    return _markdown(text) if name.endswith(".md") else text


def _markdown(text: str) -> str:
    """Without HTML, links and images, of which adarem writes none; ``p < 0.05`` stays."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", plain(text)).replace("](", "]\\(")


def _csv(text: str) -> str:
    """A spreadsheet takes what begins with ``=`` for a formula, and for one more sign what else may begin one."""
    written = io.StringIO()
    rows = csv.reader(io.StringIO(text, newline=""))
    csv.writer(written, lineterminator="\n").writerows([_field(field) for field in row] for row in rows)
    return written.getvalue()


def _field(field: str) -> str:
    return f"'{plain(field)}" if field.startswith(_FORMULA) and not _is_number(field) else plain(field)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return bool(re.fullmatch(r"-?[\d.]+( -?[\d.eE+-]+)*", field))  # several, with spaces between them
    return True
