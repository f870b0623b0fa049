"""`prepare`: checks everything first to last, leaves nothing that looks finished, does nothing twice."""

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adarem.data import fingerprint
from adarem.data import prepare as module
from adarem.data.ffcv import beton, encode
from adarem.data.images import digits
from adarem.data.loaders import open_eval, open_train
from adarem.data.prepare import prepare
from adarem.run.config import WriteConfig
from adarem.run.errors import UserError
from tests.support.imagenet_tree import jpeg, make_imagenet_tree, photograph
from tests.support.photos import TRAIN, VAL, data_config


@pytest.fixture
def photo_root(photos, tmp_path) -> Path:
    """A copy of the photographs, not prepared."""
    root = tmp_path / "photos"
    for split in ("train", "val"):
        shutil.copytree(Path(photos().root) / split, root / split)
    return root


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir() if p.name != ".prepare.lock"}


def test_file_does_not_depend_on_the_number_of_workers(photo_root):
    found = []
    for workers in (1, 3):
        data = data_config(photo_root, beton_dir=str(photo_root / f"by{workers}"))
        prints = prepare(data, workers=workers, progress=False)
        found.append((prints, [fingerprint.beton_path(data, s).read_bytes() for s in ("train", "val")]))
    assert found[0] == found[1]


def test_second_call_does_nothing(photo_root):
    data = data_config(photo_root)
    first = prepare(data, workers=1, progress=False)
    before = state(photo_root / "ffcv")
    assert prepare(data, workers=1, progress=False) == first
    assert prepare(data, workers=1, verify=True, progress=False) == first
    assert state(photo_root / "ffcv") == before
    assert not [n for n in before if "partial" in n]


def test_other_settings_or_source_write_anew(photo_root):
    data = data_config(photo_root)
    first = prepare(data, workers=1, progress=False)
    smaller = dataclasses.replace(data, write=WriteConfig("jpg", 128, 80, 0.5))
    second = prepare(smaller, workers=1, progress=False)
    assert second["train"]["content_hash"] != first["train"]["content_hash"]
    assert second["train"]["source_hash"] == first["train"]["source_hash"]
    assert second["train"]["jpeg_images"] == TRAIN and second["train"]["file_bytes"] < first["train"]["file_bytes"]
    victim = sorted((photo_root / "val").glob("*/*"))[0]
    victim.write_bytes(jpeg(photograph(80, 90, 4)))
    third = prepare(smaller, workers=1, progress=False)
    assert third["train"] == second["train"] and third["val"]["content_hash"] != second["val"]["content_hash"]


def test_content_hash_sees_labels_and_order(photo_root):
    first = prepare(data_config(photo_root), workers=1, progress=False)
    one = sorted((photo_root / "train").glob("*/*"))[0]
    one.rename(sorted((photo_root / "train").iterdir())[3] / one.name)
    second = prepare(data_config(photo_root), workers=1, progress=False)
    assert second["train"]["content_hash"] != first["train"]["content_hash"]
    assert second["val"] == first["val"]


def test_source_may_go_after_writing(photo_root, capsys):
    data = data_config(photo_root, beton_dir=str(photo_root.parent / "elsewhere"))
    first = prepare(data, workers=1, progress=False)
    shutil.rmtree(photo_root)
    assert prepare(data, workers=1, verify=True, progress=False) == first
    assert "source is not there any more" in capsys.readouterr().err


def test_damaged_file_is_written_anew(photo_root):
    data = data_config(photo_root)
    first = prepare(data, workers=1, progress=False)
    path = fingerprint.beton_path(data, "train")
    whole = path.read_bytes()
    path.write_bytes(whole[:-24])
    assert prepare(data, workers=1, progress=False) == first
    assert path.read_bytes() == whole


@pytest.mark.parametrize("backend", ["ffcv", "folder"])
def test_a_failed_prepare_leaves_the_old_data_set(photo_root, backend):
    """Training goes on with what there was, until the source is mended and prepared."""
    data = data_config(photo_root, backend=backend)
    first = prepare(data, workers=1, progress=False)
    before = state(photo_root / "ffcv")
    victims = [sorted((photo_root / split).glob("*/*"))[5] for split in ("train", "val")]
    whole = [v.read_bytes() for v in victims]
    for victim, payload in zip(victims, whole, strict=True):
        victim.write_bytes(payload[:900])
    with pytest.raises(UserError) as error:
        prepare(data, workers=1, progress=False)
    names = [f"{v.parent.name}/{v.name}" for v in victims]
    assert f"train: 1 of 61 images cannot be read: {names[0]} (" in str(error.value)
    assert f"val: 1 of 41 images cannot be read: {names[1]} (" in str(error.value)
    assert f"(all in {photo_root}/ffcv/train.bad.txt and {photo_root}/ffcv/val.bad.txt)" in str(error.value)
    after = state(photo_root / "ffcv")
    assert {n: s for n, s in after.items() if not n.endswith(".bad.txt")} == before
    assert {s: fingerprint.read_fingerprint(data, s) for s in ("train", "val")} == first
    loader = open_train(data, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    assert loader.num_images == TRAIN
    loader.close()
    victims[0].write_bytes(whole[0])
    with pytest.raises(UserError, match="val: 1 of 41 images cannot be read"):
        prepare(data, workers=1, progress=False)
    assert {n for n in state(photo_root / "ffcv") if n.endswith("bad.txt")} == {"val.bad.txt"}
    victims[1].write_bytes(whole[1])
    assert prepare(data, workers=1, progress=False) == first
    assert state(photo_root / "ffcv") == before


def test_a_bad_file_in_val_keeps_train_from_being_written(photo_root):
    victim = sorted((photo_root / "val").glob("*/*"))[5]
    victim.write_bytes(b"")
    with pytest.raises(UserError, match="val: 1 of 41 images cannot be read"):
        prepare(data_config(photo_root), workers=1, progress=False)
    assert set(state(photo_root / "ffcv")) == {"val.bad.txt"}


def test_every_image_is_decoded_once(photo_root, monkeypatch):
    seen = []
    decode = encode.decode_rgb
    monkeypatch.setattr(encode, "decode_rgb", lambda payload: seen.append(1) or decode(payload))
    prepare(data_config(photo_root), workers=1, progress=False)
    assert len(seen) == TRAIN + VAL


def test_killed_between_two_renames(photo_root, monkeypatch):
    """The old fingerprint never stands beside new files, of which it might even be true but for the pixels."""
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


def test_links_that_lie_there_are_not_written_through(photo_root, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    folder = photo_root / "ffcv"
    folder.mkdir()
    names = ("train.beton", "train.beton.partial", "train.beton.json", "train.beton.sums", "train.beton.files")
    for name in names:
        (folder / name).symlink_to(precious)
    prepare(data_config(photo_root), workers=1, progress=False)
    assert not (folder / "train.beton").is_symlink()
    (folder / ".prepare.lock").unlink()
    (folder / ".prepare.lock").symlink_to(precious)
    with pytest.raises(UserError, match=r"\.prepare\.lock: cannot be written .*; choose another data.beton_dir"):
        prepare(data_config(photo_root), workers=1, progress=False)
    assert precious.read_text() == "precious"


def test_links_to_nowhere_are_among_the_bad_files(photo_root):
    files = sorted((photo_root / "train").glob("*/*"))
    files[3].unlink()
    files[3].symlink_to("nowhere.JPEG")
    files[4].unlink()
    files[4].symlink_to(files[4].name)
    files[20].write_bytes(b"")
    data = data_config(photo_root)
    with pytest.raises(UserError, match="3 of 61 images cannot be read") as error:
        prepare(data, workers=1, progress=False)
    assert f"{files[3].name} (no such file); " in str(error.value)
    assert f"{files[4].name} (Too many levels of symbolic links); " in str(error.value)
    made = prepare(data, workers=1, progress=False, skip_bad=True)
    assert made["train"]["num_images"] == TRAIN - 3
    assert prepare(data, workers=1, progress=False, verify=True) == made


@pytest.mark.parametrize("name", ["a\nb.JPEG", os.fsdecode(b"\xff.JPEG")])
def test_names_that_no_list_can_hold(photo_root, name):
    (sorted((photo_root / "train").iterdir())[0] / name).write_bytes(b"")
    with pytest.raises(UserError, match="a name with a line feed, or not in UTF-8; rename it"):
        prepare(data_config(photo_root), workers=1, progress=False)


@pytest.mark.parametrize("backend", ["ffcv", "folder"])
def test_bad_files_are_listed_together(photo_root, backend):
    files = sorted((photo_root / "train").glob("*/*"))
    files[3].write_bytes(b"")
    files[20].write_bytes(files[20].read_bytes()[:900])
    files[21].write_text("<html>404</html>")
    files[60].write_bytes(np.random.default_rng(0).bytes(3000))
    data = data_config(photo_root, backend=backend)
    with pytest.raises(UserError, match="4 of 61 images cannot be read") as error:
        prepare(data, workers=2, progress=False)
    text = str(error.value)
    assert "\n" not in text and f"{files[3].parent.name}/{files[3].name} (empty file)" in text and "and 1 more" in text
    listed = (photo_root / "ffcv" / "train.bad.txt").read_text().splitlines()
    assert [line.split(" ")[0] for line in listed] == [
        f"{files[k].parent.name}/{files[k].name}" for k in (3, 20, 21, 60)
    ]
    assert not list((photo_root / "ffcv").glob("*.beton*")) and not list((photo_root / "ffcv").glob("*.json"))


def test_oddities_of_imagenet_are_converted_as_torchvision_does(tmp_path):
    """A greyscale, a CMYK JPEG and a PNG named .JPEG: raw pixels in the .beton equal torchvision's."""
    from torchvision.datasets import ImageFolder

    make_imagenet_tree(tmp_path, classes=3, train_per_class=2, val_per_class=1, distinct=3)
    data = data_config(tmp_path, num_classes=3, write=WriteConfig("raw", 2000, 90, 0.5))
    prepare(data, workers=1, progress=False)
    index = beton.open_index(fingerprint.beton_path(data, "train"), 3)
    theirs = ImageFolder(tmp_path / "train")
    modes, names = set(), fingerprint.files_path(data, "train").read_text().splitlines()
    assert len(theirs) == len(index) == 6
    assert fingerprint.read_fingerprint(data, "train")["classes"] == theirs.classes
    for k, (path, label) in enumerate(theirs.samples):
        image = Image.open(path)
        modes.add((image.format, image.mode))
        with open(index.path, "rb") as f:
            stored = os.pread(f.fileno(), int(index.sizes[k]), int(index.starts[k]))
        assert stored == theirs[k][0].tobytes() and label == index.labels[k]
        assert names[k] == f"train/{Path(path).parent.name}/{Path(path).name}"
    assert {("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB")} <= modes


def test_a_tree_of_imagenets_shape(tmp_path):
    """1,000 classes, names and sizes like the real ones, oddities included."""
    make_imagenet_tree(tmp_path, classes=1000, train_per_class=1, val_per_class=1, distinct=16)
    data = data_config(tmp_path, num_classes=1000, write=WriteConfig("jpg", 128, 80, 0.5))
    prints = prepare(data, workers=2, progress=False)
    assert (prints["train"]["num_images"], prints["val"]["num_images"]) == (1000, 1000)
    assert prints["train"]["classes"] == sorted(p.name for p in (tmp_path / "train").iterdir())
    train = open_train(data, global_batch_size=500, seed=0, rank=0, world_size=1, device="cpu")
    labels = np.concatenate([y.numpy() for _, y in train.epoch(0)])
    assert np.bincount(labels).tolist() == [1] * 1000
    val = open_eval(data, batch_size=300, rank=0, world_size=1, device="cpu")
    assert np.concatenate([y.numpy() for _, _, y in val]).tolist() == list(range(1000))


def remove_class(root: Path, *splits: str) -> None:
    for split in splits:
        shutil.rmtree(sorted((root / split).iterdir())[0])


def empty_class(root: Path) -> None:
    for path in sorted((root / "val").iterdir())[0].iterdir():
        path.unlink()


def empty_split(root: Path) -> None:
    for path in (root / "train").iterdir():
        shutil.rmtree(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: shutil.rmtree(r / "val"), "val: no such folder; data.root needs"),
        (shutil.rmtree, "train: no such folder; data.root needs"),
        (empty_split, "train: holds no class folders"),
        (empty_class, "val: no images in 1 classes: n01440764"),
        (lambda r: remove_class(r, "val"), "train: 1 classes are in one of train and val only"),
        (lambda r: remove_class(r, "train", "val"), "holds 6 classes, data.num_classes is 7"),
        (lambda r: (sorted((r / "train").iterdir())[2] / "more").mkdir(), "more: a folder inside a class folder"),
    ],
)
def test_wrong_layout_is_one_line(photo_root, damage, message):
    damage(photo_root)
    data = data_config(photo_root, beton_dir=str(photo_root.parent / "out"))
    with pytest.raises(UserError, match=message) as error:
        prepare(data, workers=1, progress=False)
    assert "\n" not in str(error.value)


def test_other_counts_than_the_full_data_sets_are_warned_about(photo_root, capsys):
    prepare(data_config(photo_root, expected_train=TRAIN, expected_val=50_000), workers=1, progress=False)
    said = capsys.readouterr().err
    assert f"val holds {VAL} images, the full photos 50,000" in said and said.count("warning") == 1


def test_full_disk_is_known_before(photo_root, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(UserError, match=r"needs about 0\.0 GB, 0\.0 GB are free"):
        prepare(data_config(photo_root), workers=1, progress=False)
    assert not list((photo_root / "ffcv").glob("*.beton*"))


@pytest.mark.parametrize("small", [False, True])
def test_disk_that_fills_up_while_writing(photo_root, small):
    """A file-size limit stands in for the full disk: the write fails in the middle, or, where a few small images wait
    in the file's buffer, not before its end."""
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
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    last = done.stderr.splitlines()[-1]
    assert "train.beton: cannot be written (File too large); free some space, or set data.beton_dir" in last
    assert [p.name for p in (photo_root / "ffcv").iterdir()] == [".prepare.lock"]


def test_two_at_once(photo_root):
    (photo_root / "ffcv").mkdir()
    with open(photo_root / "ffcv" / ".prepare.lock", "w") as f:
        f.write("host elsewhere, pid 7")
        f.flush()
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"ffcv: another process works on it \(host elsewhere, pid 7\); wait"):
            prepare(data_config(photo_root), workers=1, progress=False)
    prepare(data_config(photo_root), workers=1, progress=False)


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


@pytest.fixture
def writing(photo_root):
    """A process in the middle of writing, and its workers."""
    for folder in (photo_root / "train").iterdir():  # enough work to be caught at it
        source = sorted(folder.iterdir())[0]
        for k in range(1500):
            os.link(source, folder / f"more_{k}.JPEG")
    script = photo_root.parent / "prepare_it.py"
    script.write_text(PROGRAM.format(root=str(photo_root), before="pass"))
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    while not any(p.stat().st_size > 10_000_000 for p in halves(photo_root)):
        assert process.poll() is None and time.time() < deadline, process.communicate()
        time.sleep(0.01)
    shared = shared_memory(process.pid)
    yield process, children(process.pid), photo_root
    process.kill()
    process.wait()
    assert wait_until(lambda: not any(map(os.path.exists, shared)), 10), "left in /dev/shm"


def wait_until(condition, seconds: float) -> bool:
    deadline = time.time() + seconds
    while not condition() and time.time() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_write_leaves_nothing_that_looks_finished(writing, which):
    process, workers, root = writing
    assert len(workers) == 2
    process.send_signal(which)
    process.wait(timeout=120)  # a busy disk may hold up the removal of what was written
    assert wait_until(lambda: not any(map(alive, workers)), 30), "orphans"
    assert not (root / "ffcv" / "train.beton").exists() and not list((root / "ffcv").glob("*.json"))
    assert len(halves(root)) == (which in (signal.SIGKILL, signal.SIGTERM))
    data = data_config(root, write=WriteConfig("raw", 400, 90, 0.5))
    with pytest.raises(UserError, match="no such file"):
        open_train(data, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    for path in (root / "train").glob("*/more_*"):
        path.unlink()
    prepare(data, workers=1, progress=False)
    assert not list((root / "ffcv").glob(".*.partial"))


def test_killed_worker_is_reported_within_seconds(writing):
    process, workers, root = writing
    start = time.time()
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert time.time() - start < 60
    assert "a worker process of prepare died (killed, or out of memory); run `adarem prepare` again" in said
    assert wait_until(lambda: not any(map(alive, workers)), 30)
    assert not list((root / "ffcv").glob("*.beton*"))


def test_verify_sees_an_edited_source(photo_root):
    data = data_config(photo_root)
    prepare(data, workers=1, progress=False)
    victim = sorted((photo_root / "val").glob("*/*"))[7]
    payload = bytearray(victim.read_bytes())
    payload[8] ^= 1  # in the comment: same size, same pixels
    victim.write_bytes(payload)
    prepare(data, workers=1, progress=False)  # same names and sizes
    with pytest.raises(UserError, match="its images changed since"):
        prepare(data, workers=1, verify=True, progress=False)


def test_digits(tmp_path):
    data = data_config(
        tmp_path,
        name="digits",
        num_classes=10,
        train_crop=32,
        eval_resize=36,
        eval_crop=32,
        expected_train=1437,
        expected_val=360,
        write=WriteConfig("proportion", 64, 90, 0.5),
    )
    prints = prepare(data, workers=1, progress=False)
    assert (prints["train"]["num_images"], prints["val"]["num_images"]) == (1437, 360)
    # Pinned: the embedded data are the same on every machine with the same Pillow.
    train = {p.name for p in (tmp_path / "train").glob("*/*")}
    assert len(train) == 1437 and not train & {p.name for p in (tmp_path / "val").glob("*/*")}
    index = beton.open_index(fingerprint.beton_path(data, "val"))
    assert np.bincount(index.labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    loader = open_eval(data, batch_size=360, rank=0, world_size=1, device="cpu")
    (_, pixels, found), *_ = loader
    names = fingerprint.files_path(data, "val").read_text().splitlines()
    for name, picture, label in zip(names, pixels, found, strict=True):
        number = int(Path(name).stem)
        assert labels[number] == label
        small = picture.float().mean(0)[2:30, 2:30]
        original = np.kron(images[number].reshape(8, 8), np.ones((4, 4)))[2:30, 2:30]
        assert np.corrcoef(small.flatten(), original.flatten())[0, 1] > 0.7


def test_digits_are_written_once_and_mend_themselves(tmp_path):
    root = tmp_path / "digits"
    digits.write_digits(root)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    digits.write_digits(root)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    (root / digits._MARK).unlink()  # as an interrupted write leaves it
    shutil.rmtree(root / "val")
    digits.write_digits(root)
    assert sorted(root.rglob("*")) == sorted(before)


def test_digits_never_remove_what_is_not_theirs(tmp_path):
    precious = tmp_path / "train" / "n01440764" / "n01440764_1.JPEG"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(jpeg(photograph(50, 40, 0)))
    with pytest.raises(UserError, match="which is no digit; choose another data.root"):
        digits.write_digits(tmp_path)
    assert precious.exists()


def test_progress_tells_rate_and_time_left(photo_root, capsys):
    prepare(data_config(photo_root), workers=2)
    said = capsys.readouterr().err
    assert re.search(r"writing train .*61/61 .*images/s 0:00:00", said)


def test_folder_backend_writes_no_beton(photo_root):
    data = data_config(photo_root, backend="folder")
    prints = prepare(data, workers=1, progress=False)
    assert not list((photo_root / "ffcv").glob("*.beton*"))
    assert prints["train"] == json.loads((photo_root / "ffcv" / "train.folder.json").read_text())
    before = state(photo_root / "ffcv")
    assert prepare(data, workers=1, progress=False) == prints and state(photo_root / "ffcv") == before


def test_folder_file_that_goes_bad_later_is_named(photo_root):
    data = data_config(photo_root, backend="folder")
    prepare(data, workers=1, progress=False)
    victim = sorted((photo_root / "train").glob("*/*"))[11]
    victim.write_bytes(victim.read_bytes()[:700])
    loader = open_train(data, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    with pytest.raises(UserError, match=f"{victim.name}: sample 11 does not decode"):
        list(loader.epoch(0))


def test_one_pixel_wide_images(tmp_path):
    """Extremes that a resize could round to nothing."""
    for split in ("train", "val"):
        for c in range(2):
            folder = tmp_path / split / f"c{c}"
            folder.mkdir(parents=True)
            for k, (w, h) in enumerate([(1, 1), (1, 900), (900, 1), (3, 2)]):
                buffer = io.BytesIO()
                Image.fromarray(photograph(max(w, 4), max(h, 4), k)[:h, :w]).save(buffer, "JPEG")
                (folder / f"{k}.JPEG").write_bytes(buffer.getvalue())
    for mode in ("raw", "jpg"):
        data = data_config(tmp_path, num_classes=2, write=WriteConfig(mode, 100, 90, 0.5), workers=1)
        prepare(data, workers=1, progress=False)
        loader = open_train(data, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
        assert sum(len(y) for e in range(3) for _, y in loader.epoch(e)) == 24
        assert sum(len(y) for _, _, y in open_eval(data, batch_size=3, rank=0, world_size=1, device="cpu")) == 8


def test_skip_bad_leaves_files_out_and_says_so(photo_root, capsys):
    data = data_config(photo_root)
    files = sorted((photo_root / "train").glob("*/*"))
    zero, cut = files[3], files[20]
    zero.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    made = prepare(data, workers=2, progress=False, skip_bad=True)
    names = [str(f.relative_to(photo_root / "train")) for f in (zero, cut)]
    assert made["train"]["skipped"] == names and "skipped" not in made["val"]
    assert made["train"]["num_images"] == len(files) - 2
    assert all(name in capsys.readouterr().err for name in names[:1])
    # the same content as a source that never had them; what was skipped is settled and not asked about again
    before = (photo_root / "ffcv" / "train.beton").stat().st_mtime_ns
    assert prepare(data, workers=2, progress=False, verify=True)["train"] == made["train"]
    assert (photo_root / "ffcv" / "train.beton").stat().st_mtime_ns == before
    zero.unlink()
    cut.unlink()
    clean = prepare(data_config(photo_root, beton_dir=str(photo_root / "clean")), workers=2, progress=False)
    assert clean["train"]["content_hash"] == made["train"]["content_hash"]


def test_skip_bad_does_not_empty_a_class(photo_root):
    folder = sorted((photo_root / "train").iterdir())[2]
    for file in folder.iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match=f"class {folder.name} has no readable image left"):
        prepare(data_config(photo_root), workers=2, progress=False, skip_bad=True)
    assert not (photo_root / "ffcv" / "train.beton").exists()
