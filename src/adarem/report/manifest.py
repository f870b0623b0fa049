"""manifest.json of a sweep's results: what the report wrote, of which runs, and how they stand to the paper."""

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from adarem.run.errors import UserError
from adarem.run.files import write_atomically

FILE = "manifest.json"


def _inside(path: str) -> str:
    """What is published must not lie outside of the sweep's results."""
    if not path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("needs a path inside of the manifest's folder")
    return path


Paths = tuple[Annotated[str, AfterValidator(_inside)], ...]  # relative to the manifest


class Files(BaseModel):
    """What was written, by kind, the manifest itself left out."""

    model_config = ConfigDict(frozen=True)

    table: Paths
    time: Paths = ()  # time to accuracy; none for grids of the oscillation index
    runs: Paths
    figures: Paths
    page: Paths

    @property
    def csv(self) -> str:
        """The table with bare numbers."""
        return next(name for name in self.table if name.endswith(".csv"))

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.table, *self.time, *self.runs, *self.figures, *self.page)


class Standing(BaseModel):
    """How the runs stand to the paper, with one line of reason; empty for a reproduction."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["reproduction", "variation", "rehearsal", "study"]
    reason: str


class Manifest(BaseModel):
    """A function of the sweep alone: no time of the report."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
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


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Writes ``<folder>/manifest.json``."""
    path = folder / FILE
    write_atomically(path, manifest.model_dump_json(indent=2) + "\n")
    return path


def read_manifest(path: Path) -> Manifest:
    """The manifest at ``path``, or in the folder ``path``.

    Raises:
        UserError: there is none, it is damaged, or it names a file outside of its folder.
    """
    path = path / FILE if path.is_dir() else path
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `adarem report` writes it") from None
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); fix that, or rerun `adarem report`") from None
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise UserError(f"{path}: {what}; rerun `adarem report`") from None
