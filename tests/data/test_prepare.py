"""`prepare` checks everything from first to last, keeps the old data set when it fails, and does nothing twice."""

import dataclasses
import fcntl
import shutil

import pytest

from adarem.data import fingerprint
from adarem.data import prepare as module
from adarem.data.loaders import open_train
from adarem.data.prepare import prepare
from adarem.run.config import WriteConfig
from adarem.run.errors import UserError
from tests.support.imagenet_tree import jpeg, photograph
from tests.support.photos import TRAIN, VAL, data_config, file_states


def test_second_call_does_nothing(photo_root):
    data = data_config(photo_root)
    first = prepare(data, workers=1, progress=False)
    before = file_states(photo_root / "ffcv")
    assert prepare(data, workers=1, progress=False) == first
    assert prepare(data, workers=1, verify=True, progress=False) == first
    assert file_states(photo_root / "ffcv") == before
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
    complete = path.read_bytes()
    path.write_bytes(complete[:-24])
    assert prepare(data, workers=1, progress=False) == first
    assert path.read_bytes() == complete


@pytest.mark.parametrize("backend", ["ffcv", "folder"])
def test_a_failed_prepare_leaves_the_old_data_set(photo_root, backend):
    """Training goes on with what there was, until the source is mended and prepared."""
    data = data_config(photo_root, backend=backend)
    first = prepare(data, workers=1, progress=False)
    before = file_states(photo_root / "ffcv")
    victims = [sorted((photo_root / split).glob("*/*"))[5] for split in ("train", "val")]
    complete = [v.read_bytes() for v in victims]
    for victim, payload in zip(victims, complete, strict=True):
        victim.write_bytes(payload[:900])
    with pytest.raises(UserError) as error:
        prepare(data, workers=1, progress=False)
    names = [f"{v.parent.name}/{v.name}" for v in victims]
    assert f"train: 1 of 61 images cannot be read: {names[0]} (" in str(error.value)
    assert f"val: 1 of 41 images cannot be read: {names[1]} (" in str(error.value)
    assert f"(all in {photo_root}/ffcv/train.bad.txt and {photo_root}/ffcv/val.bad.txt)" in str(error.value)
    after = file_states(photo_root / "ffcv")
    assert {n: s for n, s in after.items() if not n.endswith(".bad.txt")} == before
    assert {s: fingerprint.read_fingerprint(data, s) for s in ("train", "val")} == first
    loader = open_train(data, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    assert loader.num_images == TRAIN
    loader.close()
    victims[0].write_bytes(complete[0])
    with pytest.raises(UserError, match="val: 1 of 41 images cannot be read"):
        prepare(data, workers=1, progress=False)
    assert {n for n in file_states(photo_root / "ffcv") if n.endswith("bad.txt")} == {"val.bad.txt"}
    victims[1].write_bytes(complete[1])
    assert prepare(data, workers=1, progress=False) == first
    assert file_states(photo_root / "ffcv") == before


def test_a_bad_file_in_val_keeps_train_from_being_written(photo_root):
    victim = sorted((photo_root / "val").glob("*/*"))[5]
    victim.write_bytes(b"")
    with pytest.raises(UserError, match="val: 1 of 41 images cannot be read"):
        prepare(data_config(photo_root), workers=1, progress=False)
    assert set(file_states(photo_root / "ffcv")) == {"val.bad.txt"}


def test_other_counts_than_the_full_data_sets_are_warned_about(photo_root, capsys):
    prepare(data_config(photo_root, expected_train=TRAIN, expected_val=50_000), workers=1, progress=False)
    said = capsys.readouterr().err
    assert f"val holds {VAL} images, the full photos 50,000" in said and said.count("warning") == 1


def test_full_disk_is_known_before(photo_root, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(UserError, match=r"needs about 0\.0 GB, 0\.0 GB are free"):
        prepare(data_config(photo_root), workers=1, progress=False)
    assert not list((photo_root / "ffcv").glob("*.beton*"))


def test_two_at_once(photo_root):
    (photo_root / "ffcv").mkdir()
    with open(photo_root / "ffcv" / ".prepare.lock", "w") as f:
        f.write("host elsewhere, pid 7")
        f.flush()
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"ffcv: another process works on it \(host elsewhere, pid 7\); wait"):
            prepare(data_config(photo_root), workers=1, progress=False)
    prepare(data_config(photo_root), workers=1, progress=False)


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


def test_without_opencv_no_beton_is_begun(photo_root, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes with the extra ffcv; the backend folder does without."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"OpenCV, .*, is not installed; run `pip install 'adarem\[ffcv\]'`"):
        prepare(data_config(photo_root), workers=1, progress=False)
    assert not (photo_root / "ffcv").exists()
    assert prepare(data_config(photo_root, backend="folder"), workers=1, progress=False)
