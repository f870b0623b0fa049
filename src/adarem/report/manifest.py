"""manifest.json of a sweep's results: what the report wrote, of which runs, and how they stand to the paper."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adarem.run.build import build
from adarem.run.errors import UserError
from adarem.run.files import read_file, write_atomically
from adarem.run.reproduction import Standing

FILE = "manifest.json"


@dataclass(frozen=True)
class Files:
    """What was written, by kind, the manifest itself left out; paths relative to the manifest."""

    table: tuple[str, ...]
    runs: tuple[str, ...]
    figures: tuple[str, ...]
    page: tuple[str, ...]
    time: tuple[str, ...] = ()  # time to accuracy; none for grids of the oscillation index and searches
    steps: tuple[str, ...] = ()  # watched steps; none where no run has any
    search: tuple[str, ...] = ()  # CSVs of what a search found

    @property
    def csv(self) -> str:
        """The table with bare numbers."""
        return next(name for name in self.table if name.endswith(".csv"))

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.table, *self.time, *self.search, *self.runs, *self.steps, *self.figures, *self.page)


@dataclass(frozen=True)
class Manifest:
    """A function of the sweep alone: it holds no time of the report."""

    sweep: str  # name of its folder of runs
    grid: str
    heading: str  # "Table 2"
    title: str
    standing: Standing
    metrics: tuple[str, ...]  # the first is the primary one
    runs: int  # that could be read
    finished: int  # of these, done or diverged
    commits: tuple[str, ...]  # of all attempts; "+dirty" for uncommitted changes
    last_run_ended: str | None  # ISO 8601, UTC
    files: Files
    format: int = 1


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Writes ``<folder>/manifest.json``."""
    path = folder / FILE
    write_atomically(path, json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False) + "\n")
    return path


def read_manifest(path: Path) -> Manifest:
    """The manifest at ``path``, or in the folder ``path``.

    Raises:
        UserError: there is none, it is damaged, or it names a file outside of its folder.
    """
    path = path / FILE if path.is_dir() else path
    try:
        manifest = build(Manifest, json.loads(read_file(path)))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `adarem report` writes it") from None
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); fix that, or rerun `adarem report`") from None
    except UserError as e:  # which is a ValueError, too
        raise UserError(f"{path}: {e}; rerun `adarem report`") from None
    except ValueError:  # of JSON and of UTF-8
        raise UserError(f"{path}: not JSON; rerun `adarem report`") from None
    for name in manifest.files.all:
        parts = PurePosixPath(name)
        if not name or parts.is_absolute() or ".." in parts.parts:  # what is published must be of this sweep
            raise UserError(f"{path}: files: {name!r}: not inside of its folder; rerun `adarem report`")
    if not any(name.endswith(".csv") for name in manifest.files.table):
        raise UserError(f"{path}: files.table: names no CSV; rerun `adarem report`")
    return manifest
