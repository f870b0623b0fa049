"""The report's own CSV files, read again."""

import csv
from collections.abc import Sequence
from pathlib import Path

from adarem.run.errors import UserError


def read_rows(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Its rows; none where there is no such file.

    Raises:
        UserError: it is no CSV, or lacks one of ``columns``.
    """
    try:
        with open(path, newline="", encoding="utf-8") as f:
            reader = csv.DictReader(f, restval="")
            rows = list(reader)
    except FileNotFoundError:
        return []
    except (csv.Error, UnicodeDecodeError):
        rows, reader = [], None
    if reader is None or not set(columns) <= set(reader.fieldnames or ()):
        raise UserError(f"{path}: not a CSV that the report wrote; restore it, or move it away")
    return rows
