"""Folders for compiled code are private, or not used; test_native.py has what is loaded from them."""

import os
import stat
from pathlib import Path

import pytest

from adarem import caches
from tests.support.stranger import NOBODY


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SOME_DIR", raising=False)
    return tmp_path / "cache" / "adarem"


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_every_folder_that_is_made_is_private(umask: int, base: Path) -> None:
    before = os.umask(umask)
    try:
        os.close(caches.open_private(base / "a" / "b", "SOME_DIR"))
    finally:
        os.umask(before)
    for folder in (base.parent, base, base / "a", base / "a" / "b"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o702, 0o1777])
def test_a_folder_that_others_can_write_to(mode: int, base: Path) -> None:
    base.mkdir(parents=True)
    base.chmod(mode)
    with pytest.raises(caches.NotPrivate, match="can be written to by other users; `chmod 700 .*`, or set SOME_DIR"):
        caches.open_private(base, "SOME_DIR")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user, which only root can")
def test_a_folder_of_another_user(base: Path) -> None:
    base.mkdir(parents=True)
    os.chown(base, NOBODY, NOBODY)
    with pytest.raises(caches.NotPrivate, match="belongs to another user; set SOME_DIR to a folder of your own"):
        caches.open_private(base, "SOME_DIR")


def test_another_library_gets_a_private_folder(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_DIR", "")  # monkeypatch restores it
    assert caches.use_private("SOME_DIR", "theirs") == ""
    assert os.environ["SOME_DIR"] == str(base / "theirs") and stat.S_IMODE((base / "theirs").stat().st_mode) == 0o700
    monkeypatch.setenv("SOME_DIR", "/of/the/user")
    assert caches.use_private("SOME_DIR", "theirs") == "" and os.environ["SOME_DIR"] == "/of/the/user"


def test_or_one_for_this_process(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "theirs").mkdir(parents=True)
    (base / "theirs").chmod(0o777)
    monkeypatch.setenv("SOME_DIR", "")
    assert "can be written to by other users" in caches.use_private("SOME_DIR", "theirs")
    own = Path(os.environ["SOME_DIR"])
    assert own != base / "theirs" and stat.S_IMODE(own.stat().st_mode) == 0o700 and own.stat().st_uid == os.geteuid()
