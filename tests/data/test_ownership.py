"""What `prepare` did not write is neither removed nor replaced."""

from pathlib import Path

import pytest

from adarem.data.ownership import check_own
from adarem.data.prepare import prepare
from adarem.run.errors import UserError
from tests.support.photos import data_config

FOREIGN = (
    ("ffcv", "train.beton", b"\x02\x00 a file of the user's own FFCV writer"),
    ("ffcv", "val.beton.json", b"{}"),
    ("ffcv", "val.beton.json", b'{"format": 1, "split": "train"}'),
    ("ffcv", "train.beton.files", b"a\n"),
    ("ffcv", "val.beton.sums", b""),
    ("ffcv", "train.bad.txt", b"to do: look at these\n"),
    ("folder", "train.folder.json", b"[1]"),
    ("folder", "val.folder.files", b"mine\n"),
)


@pytest.mark.parametrize(("backend", "name", "content"), FOREIGN)
def test_files_of_others_stay(photo_root: Path, backend: str, name: str, content: bytes) -> None:
    mine = photo_root / "ffcv" / name
    mine.parent.mkdir()
    mine.write_bytes(content)
    with pytest.raises(
        UserError, match=rf"{name}: not written by `adarem prepare` \(.*\); choose another data.beton_dir"
    ):
        prepare(data_config(photo_root, backend=backend), workers=1, progress=False)
    assert mine.read_bytes() == content
    assert {p.name for p in mine.parent.iterdir()} == {name, ".prepare.lock"}


def test_temporary_files_of_others_stay(photo_root: Path) -> None:
    mine = photo_root / "ffcv" / ".train.mine.partial"
    mine.parent.mkdir()
    mine.write_text("mine")
    prepare(data_config(photo_root), workers=1, progress=False)
    assert mine.read_text() == "mine"


def test_its_own_files_may_be_replaced(photo_root: Path) -> None:
    data = data_config(photo_root)
    prepare(data, workers=1, progress=False)
    for split in ("train", "val"):
        check_own(data, split)
