"""Which names are left behind by programs, and which are images or classes of a user."""

import pytest

from adarem.data.images.junk import is_junk


@pytest.mark.parametrize(
    "name",
    [
        *(".ipynb_checkpoints", "__MACOSX", "._n01440764_18.JPEG", ".DS_Store", ".Trashes", ".Trash-1000", ".nfs000a"),
        *("@eaDir", "#recycle", "lost+found", "$RECYCLE.BIN", "System Volume Information", "Icon\r", "thumbs.DB"),
    ],
)
def test_left_behind_as_file_or_folder(name: str) -> None:
    assert is_junk(name, folder=True) and is_junk(name, folder=False)


@pytest.mark.parametrize("name", ["a.JPEG~", "a.jpg.part", "a.jpg.crdownload", "train.tar.aria2", ".a.jpg.swp"])
def test_left_behind_as_file_alone(name: str) -> None:
    assert is_junk(name, folder=False) and not is_junk(name, folder=True)


@pytest.mark.parametrize("name", ["a.JPEG", "_cat.png", "part.jpg", "n01440764", "recycle", "eaDir", "DS_Store", "tmp"])
def test_images_and_classes(name: str) -> None:
    assert not is_junk(name, folder=True) and not is_junk(name, folder=False)
