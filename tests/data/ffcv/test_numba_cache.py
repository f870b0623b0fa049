"""numba's compiled functions are kept where nobody else can put any, and nothing about that folder ends a program."""

import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.data.ffcv import numba_cache
from adarem.native import SlowerWarning
from tests.support.stranger import NOBODY, Payload

_MIX = """
import os, sys
os.umask(0o002)
from adarem.data.ffcv import kernels
import numpy as np
print(kernels.mix(np.uint64(7)), len(kernels.mix.stats.cache_hits))
"""


def mixed(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **environment}
    done = subprocess.run([sys.executable, "-c", _MIX], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def kept(folder: Path, ending: str) -> Path:
    (file,) = (p for p in folder.rglob(f"*mix*{ending}") if "sample" not in p.name)
    return file


@pytest.mark.parametrize("ending, size", [(".nbi", 0), (".nbc", 40)])
def test_a_damaged_cache_of_numbas_is_made_anew(ending: str, size: int, tmp_path: Path) -> None:
    first = mixed(tmp_path)
    assert not first.stderr
    os.truncate(kept(tmp_path, ending), size)
    again = mixed(tmp_path)
    assert again.stdout == first.stdout
    assert again.stderr.count("SlowerWarning: ") == 1 and "damaged (" in again.stderr
    complete = mixed(tmp_path)
    assert complete.stdout.split() == [first.stdout.split()[0], "1"] and not complete.stderr


def test_it_is_private_under_any_umask(tmp_path: Path) -> None:
    """In the user's cache, where the place of numba's own is the package, which others may share."""
    assert mixed(Path(""), NUMBA_CACHE_DIR="", XDG_CACHE_HOME=str(tmp_path)).stdout.split()[1] == "0"
    folders = [p for p in (tmp_path / "adarem").rglob("*") if p.is_dir()]
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {stat.S_IMODE(p.stat().st_mode) for p in folders} == {0o700}
    assert len(files) >= 2 and {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}


def readable_by_all(file: Path, _payload: bytes) -> None:
    file.chmod(0o644)


def writable_by_the_group(file: Path, payload: bytes) -> None:
    file.write_bytes(payload)
    file.chmod(0o664)


def of_another_user(file: Path, payload: bytes) -> None:
    file.write_bytes(payload)
    os.chown(file, NOBODY, NOBODY)


def a_link(file: Path, payload: bytes) -> None:
    file.rename(file.with_name("elsewhere"))
    file.with_name("elsewhere").write_bytes(payload)
    file.symlink_to("elsewhere")


def a_pipe(file: Path, _payload: bytes) -> None:
    file.unlink()
    os.mkfifo(file)


def writable_folder(file: Path, payload: bytes) -> None:
    file.write_bytes(payload)
    file.parent.chmod(0o775)


def folder_of_another_user(file: Path, payload: bytes) -> None:
    file.write_bytes(payload)
    os.chown(file.parent, NOBODY, NOBODY)


FOREIGN = {
    writable_by_the_group: "can be written to by other users, so it is not loaded; remove it",
    of_another_user: "belongs to another user, so it is not loaded; remove it",
    a_link: "so it is not loaded; remove it",
    a_pipe: "is no file, so it is not loaded; remove it",
    writable_folder: "can be written to by other users; `chmod 700 ",
    folder_of_another_user: "belongs to another user; set NUMBA_CACHE_DIR to a folder of your own",
}


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user, which only root can")
@pytest.mark.parametrize("change", FOREIGN, ids=lambda change: change.__name__)
@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
def test_what_another_user_may_have_written_is_not_unpickled(
    ending: str, change: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    first = mixed(tmp_path / "cache")
    change(kept(tmp_path / "cache", ending), pickle.dumps(Payload(str(tmp_path / "hacked"))))
    done = mixed(tmp_path / "cache")
    assert done.stdout == first.stdout  # compiled anew
    assert done.stderr.count("SlowerWarning: ") == 1 and FOREIGN[change] in done.stderr
    assert not (tmp_path / "hacked").exists()


def test_a_file_that_others_may_read_is_ones_own(tmp_path: Path) -> None:
    mixed(tmp_path)
    readable_by_all(kept(tmp_path, ".nbc"), b"")
    done = mixed(tmp_path)
    assert done.stdout.split()[1] == "1" and not done.stderr


def test_a_full_disk_and_no_folder_at_all_cost_time_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Full:
        cache_path = "/cache"
        flush = None

        def save_overload(self, signature: object, compiled: object) -> None:
            raise OSError(28, "No space left on device")

    with pytest.warns(SlowerWarning, match="^/cache: cannot be written .*No space left.*; set NUMBA_CACHE_DIR"):
        numba_cache._Cache(Full()).save_overload("signature", "code")
    monkeypatch.setattr("numba.config.CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    with pytest.warns(SlowerWarning, match="nowhere: no such folder; set HOME .* each process compiles anew"):
        double = numba_cache.compiled(lambda x: 2 * x)
    assert double(4) == 8
