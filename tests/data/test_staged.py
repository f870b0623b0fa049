"""Whenever and however a write ends, no file is left that looks finished."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from adarem.data import fingerprint
from adarem.data.loaders import open_train
from adarem.data.prepare import prepare
from adarem.run.config import WriteConfig
from adarem.run.errors import UserError
from tests.support import ROOT
from tests.support.imagenet_tree import jpeg, photograph
from tests.support.photos import data_config
from tests.support.processes import wait_for


def test_killed_between_two_renames(photo_root, monkeypatch):
    """The old fingerprint is never left next to new files, which it may describe in all but the pixels."""
    data = data_config(photo_root, write=WriteConfig("raw", 64, 90, 0.5))
    prepare(data, workers=1, progress=False)
    victim = sorted((photo_root / "train").glob("*/*"))[0]
    with Image.open(victim) as image:
        Image.new("RGB", image.size).save(victim, "JPEG")
    replace, done = os.replace, []

    def dying(source, target):
        replace(source, target)
        done.append(Path(target).name)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        prepare(data, workers=1, progress=False)
    assert done == ["train.beton"] and not list((photo_root / "ffcv").glob(".*.partial"))
    with pytest.raises(UserError, match=r"train.beton.json: no such file; `adarem prepare"):
        fingerprint.open_beton(data, "train")
    monkeypatch.undo()
    assert prepare(data, workers=1, progress=False)["train"]["num_images"]  # its own files, without a fingerprint
    assert not list((photo_root / "ffcv").glob(".*.replacing"))


def test_links_that_lie_there_are_neither_replaced_nor_written_through(photo_root, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    folder = photo_root / "ffcv"
    folder.mkdir()
    for name in ("train.beton", "train.beton.json", "train.beton.sums", "train.beton.files"):
        (folder / name).symlink_to(precious)
        with pytest.raises(
            UserError, match=rf"/{name}: not written by `adarem prepare` .*choose another data.beton_dir"
        ):
            prepare(data_config(photo_root), workers=1, progress=False)
        assert (folder / name).is_symlink()
        (folder / name).unlink()
    (folder / "train.beton.partial").symlink_to(precious)
    prepare(data_config(photo_root), workers=1, progress=False)
    assert (folder / "train.beton.partial").is_symlink()
    (folder / ".prepare.lock").unlink()
    (folder / ".prepare.lock").symlink_to(precious)
    with pytest.raises(
        UserError, match=r"\.prepare\.lock: a link and no file; remove it, or put the file itself there"
    ):
        prepare(data_config(photo_root), workers=1, progress=False)
    assert precious.read_text() == "precious"


PROGRAM = """
import sys
from pathlib import Path
from tests.support.photos import data_config
from adarem.run.config import WriteConfig
from adarem.data.prepare import prepare
if __name__ == "__main__":
    {before}
    prepare(data_config(Path({root!r}), write=WriteConfig("raw", 400, 90, 0.5)), workers=2, progress=False)
"""

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}  # where a script elsewhere, and its workers, find tests.support

# Stops the writing process before its 31st image: it makes the file "held", then waits until someone opens the gate.
HOLD = """
    from adarem.data.ffcv.writer import BetonFile
    append = BetonFile.append
    def held(self, image, label):
        if self.count == 30:
            self.file.flush()
            Path({place!r}, "held").touch()
            Path({place!r}, "gate").read_bytes()
        append(self, image, label)
    BetonFile.append = held
"""


@pytest.mark.parametrize("small", [False, True])
def test_disk_that_fills_up_while_writing(photo_root, small):
    """A file-size limit takes the place of the full disk: the write fails in the middle; or at its end, where a few
    small images wait in the file's buffer."""
    if small:
        for path in photo_root.glob("*/*/*"):
            path.write_bytes(jpeg(photograph(6, 6, 0)))
    limit = 8_400_000 if small else 9_000_000  # the first image lies at 8 MiB
    program = PROGRAM.format(
        root=str(photo_root),
        before=(
            "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
        ),
    )
    script = photo_root.parent / "fills.py"
    script.write_text(program)
    done = subprocess.run([sys.executable, script], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    last = done.stderr.splitlines()[-1]
    assert "train.beton: cannot be written (File too large); free some space, or set data.beton_dir" in last
    assert [p.name for p in (photo_root / "ffcv").iterdir()] == [".prepare.lock"]


def halves(root: Path) -> list[Path]:
    return sorted((root / "ffcv").glob(".train.beton.*.partial"))


def children(pid: int) -> list[int]:
    """Its workers; not multiprocessing's resource tracker, which outlives it for a moment to clean up."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            command = (stat.parent / "cmdline").read_text()
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            if parent == pid and "spawn_main" in command:
                found.append(int(stat.parent.name))
    return found


def shared_memory(pid: int) -> set[str]:
    return set(re.findall(r"/dev/shm/\S+", Path(f"/proc/{pid}/maps").read_text()))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Writing(NamedTuple):
    """A process that is held in the middle of writing train.beton."""

    process: subprocess.Popen[str]
    workers: list[int]
    root: Path
    gate: Path  # a named pipe; whoever opens it to write lets the process go on


@pytest.fixture
def writing(photo_root: Path) -> Iterator[Writing]:
    place = photo_root.parent
    os.mkfifo(place / "gate")
    script = place / "prepare_it.py"
    script.write_text(PROGRAM.format(root=str(photo_root), before=HOLD.format(place=str(place)).strip()))
    process = subprocess.Popen(
        [sys.executable, script], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    shared: set[str] = set()
    try:
        wait_for((place / "held").exists, 300, process)
        (partial,) = halves(photo_root)
        assert partial.stat().st_size > 8 << 20  # the first image lies at 8 MiB
        shared = shared_memory(process.pid)
        yield Writing(process, children(process.pid), photo_root, place / "gate")
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not any(map(os.path.exists, shared)), 60)


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_write_leaves_nothing_that_looks_finished(writing: Writing, which: signal.Signals) -> None:
    root = writing.root
    assert len(writing.workers) == 2
    writing.process.send_signal(which)
    writing.process.wait(timeout=300)
    wait_for(lambda: not any(map(alive, writing.workers)), 60)
    assert not (root / "ffcv" / "train.beton").exists() and not list((root / "ffcv").glob("*.json"))
    assert len(halves(root)) == (which in (signal.SIGKILL, signal.SIGTERM))
    data = data_config(root, write=WriteConfig("raw", 400, 90, 0.5))
    with pytest.raises(UserError, match="no such file"):
        open_train(data, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    prepare(data, workers=1, progress=False)
    assert not list((root / "ffcv").glob(".*.partial"))


def test_killed_worker_is_reported(writing: Writing) -> None:
    """Each worker still has images to send, more than a pipe holds, so that none of them is done."""
    os.kill(writing.workers[0], signal.SIGKILL)
    wait_for(lambda: not alive(writing.workers[0]), 60)
    writing.gate.write_bytes(b"")
    printed, _ = writing.process.communicate(timeout=300)
    assert "a worker process of prepare died (killed, or out of memory); run `adarem prepare` again" in printed
    wait_for(lambda: not any(map(alive, writing.workers)), 60)
    assert not list((writing.root / "ffcv").glob("*.beton*"))
