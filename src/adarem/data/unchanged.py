"""Are the data of a finished run still those that are there? Its result has their fingerprint. No torch.

The prepared files are compared by what a loader reads. The source is listed only where that may bring news: where none
are there, where it lies elsewhere than then, or where a folder was changed after the files were made.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from adarem.data import fingerprint
from adarem.data.images.open_source import folder_name, open_source
from adarem.data.prepared import check_split
from adarem.data.text.corpus import read_corpus
from adarem.run.config import DataConfig, RunConfig, TextConfig
from adarem.run.directory import FINISHED, RunDir
from adarem.run.errors import UserError
from adarem.run.identity import identity
from adarem.run.records import JsonRecord, section, text
from adarem.run.sweep import runs_in

_REMEDY = (
    "put the old data back, or remove that run to train it again, or give another runs_dir (or data.name) for the new"
)


class DataNow:
    """What there is of one data set now; looked up when it is first asked for."""

    def __init__(self, data: DataConfig | TextConfig) -> None:
        self._data = data
        self._prepared: Mapping[str, JsonRecord] | None = None
        self._listings: dict[str, str] | None = None

    def differs_from(self, result: JsonRecord, *, moved: bool = False) -> str | None:
        """In words how the data differ from those of a result.json; None where they do not, or nothing is known.

        Args:
            moved: data.root is another folder than the run had.
        """
        then = section(result, "fingerprint")
        now = self._read_prepared()
        for split, record in now.items():
            old, new = text(section(then, split), "content_hash"), text(record, "content_hash")
            if old and new and old != new:
                same = text(section(then, split), "source_hash") == text(record, "source_hash") != ""
                what = "the same images stored in another way" if same else "other data"
                return f"{what} ({split}: content {old[:12]} then, {new[:12]} now)"
        for split, new in self._list_source(moved).items():
            record = section(then, split)
            old = text(record, "complete_listing_hash") or text(record, "listing_hash")
            if old and old != new:
                return f"other images ({split}: names and sizes of the files differ)"
        return None

    def _read_prepared(self) -> Mapping[str, JsonRecord]:
        """The fingerprint of each split; none where the data are not prepared."""
        if self._prepared is None:
            try:
                if isinstance(self._data, TextConfig):
                    self._prepared = read_corpus(self._data).fingerprint
                else:
                    self._prepared = {s: check_split(self._data, s) for s in fingerprint.splits_read(self._data)}
            except UserError:
                self._prepared = {}
        return self._prepared

    def _list_source(self, moved: bool) -> dict[str, str]:
        """Hashes of the names and sizes of the source's files, where the prepared files do not speak for them."""
        data = self._data
        if isinstance(data, TextConfig) or not moved and self._read_prepared() and not _changed_since_prepared(data):
            return {}
        if not (Path(data.root) / folder_name(data, "train")).is_dir():
            return {}  # archives, which take minutes to list, or nothing
        if self._listings is None:
            try:
                self._listings = {split: source.listing_hash for split, source in open_source(data).items()}
            except UserError:
                self._listings = {}  # no source there: the prepared files are all that there is
        return self._listings


def _changed_since_prepared(data: DataConfig) -> bool:
    """Whether a file came, went or was renamed in a class folder after the files were made."""
    for split in fingerprint.splits_read(data):
        made = fingerprint.fingerprint_path(data, split).stat().st_mtime
        folder = Path(data.root) / folder_name(data, split)
        try:
            folders = [folder, *(p for p in folder.iterdir() if p.is_dir() and p != Path(data.beton_dir))]
            if any(p.stat().st_mtime > made for p in folders):
                return True
        except OSError:
            continue
    return False


def check_unchanged(finished: Iterable[tuple[RunDir, RunConfig]]) -> None:
    """Holds the data that are there now against the results of runs that are finished; others are passed over.

    Args:
        finished: each run with the config that it would be started with now.

    Raises:
        UserError: the data are not those that the run was trained on.
    """
    seen: dict[DataConfig | TextConfig, DataNow] = {}
    for run, config in finished:
        if run.status() not in FINISHED:
            continue
        now = seen.setdefault(config.data, DataNow(config.data))
        if how := now.differs_from(run.result() or {}, moved=run.config().data.root != config.data.root):
            raise UserError(f"{run.path}: finished, and data.root={config.data.root} holds {how}; {_REMEDY}")


def check_like_finished(run: RunDir, config: RunConfig, fingerprints: Mapping[str, JsonRecord]) -> None:
    """Holds the data that a run is about to read against the finished runs of its sweep with the same data settings.

    Args:
        fingerprints: of each split that it reads.

    Raises:
        UserError: one of them read other data.
    """
    mine = _data_settings(config)
    for other in runs_in(run.path.parent):
        if other.path == run.path:
            continue
        try:
            if other.status() not in FINISHED or _data_settings(other.config()) != mine:
                continue
            result = other.result() or {}
        except UserError:
            continue  # `status` and `report` name what cannot be read
        for split, record in fingerprints.items():
            then = section(section(result, "fingerprint"), split)
            old, new = text(then, "content_hash"), text(record, "content_hash")
            if old and old != new:
                raise UserError(
                    f"{run.path}: would read other data than {other.path.name} did ({split}: content {old[:12]} then, "
                    f"{new[:12]} now), and no table shows both; {_REMEDY}"
                )


def _data_settings(config: RunConfig) -> dict[str, object]:
    return {key: value for key, value in identity(config).items() if key.startswith("data.")}
