"""Is a data set prepared? The one answer that `prepare`, `launch` and `doctor` share. No torch."""

from collections.abc import Mapping
from dataclasses import asdict

from adarem.data import fingerprint
from adarem.data.fingerprint import Fingerprint
from adarem.data.images.open_source import combined_listing
from adarem.data.text.corpus import read_corpus
from adarem.run.config import DataConfig, TextConfig
from adarem.run.errors import UserError


def is_prepared(data: DataConfig | TextConfig) -> bool:
    """Whether the files that a run reads are there, complete and written with these settings; milliseconds."""
    try:
        check_prepared(data)
    except UserError:
        return False
    return True


def check_prepared(data: DataConfig | TextConfig) -> None:
    """Raises UserError unless the data set is prepared; the message names the file and what is wrong with it."""
    if isinstance(data, TextConfig):
        read_corpus(data)
        return
    check_listing(data, {split: check_split(data, split) for split in fingerprint.splits_read(data)})


def check_listing(data: DataConfig, found: Mapping[str, Fingerprint]) -> None:
    """Raises UserError where plan counted other images in data.root than the prepared files, by split, were made of.

    Where a split is not read, for a holdout, what prepare recorded of it stands in; without that nothing is compared.
    """
    if data.listing is None:
        return
    try:
        records = {s: found.get(s) or fingerprint.read_fingerprint(data, s) for s in fingerprint.SPLITS}
    except UserError:
        return
    hashes = {s: (f.get("complete_listing_hash", f["listing_hash"]), f["class_hash"]) for s, f in records.items()}
    if combined_listing(hashes) != data.listing:
        raise UserError(
            f"{data.beton_dir}: made of other images than data.root={data.root} held when the run was planned; run "
            "`adarem launch` as before, which prepares them again"
        )


def check_split(data: DataConfig, split: str) -> Fingerprint:
    """The fingerprint of a prepared split.

    Raises:
        UserError: fingerprint or files are missing or damaged, or were written with another ``data.write``.
    """
    found = fingerprint.read_fingerprint(data, split)
    if data.backend == "folder":
        listing = fingerprint.files_path(data, split)
        if not listing.exists():
            raise UserError(f"{listing}: no such file; run `{fingerprint.prepare_command(data)}`")
        return found
    fingerprint.open_beton(data, split)
    if found["write"] != asdict(data.write):
        path = fingerprint.beton_path(data, split)
        raise UserError(f"{path}: written with another data.write; run `{fingerprint.prepare_command(data)}` again")
    return found


def prepared_bytes(data: DataConfig | TextConfig) -> int | None:
    """What the files that `prepare` writes take on the disk; None where they are not there, or images are read as they
    are."""
    if isinstance(data, TextConfig) or data.backend == "folder":
        return None
    files = [fingerprint.beton_path(data, split) for split in fingerprint.SPLITS]
    return sum(f.stat().st_size for f in files if f.exists()) or None
