"""Reading through FFCV: any .beton, damaged samples named, never a crash, a hang or another image's pixels."""

import gc
import io
import re
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adarem.data import fingerprint
from adarem.data.ffcv import beton, partial_decode
from adarem.data.ffcv import reader as ffcv_reader
from adarem.data.images.source import decode_rgb, scan
from adarem.data.loaders import open_eval, open_train
from adarem.data.prepare import prepare
from adarem.run.config import WriteConfig
from adarem.run.errors import UserError
from tests.support.beton_damage import METADATA_AT, edit, table_at
from tests.support.imagenet_tree import photograph
from tests.support.photos import data_config


def test_our_loader_reads_stock_ffcvs_files(photos, tmp_path):
    """A file that FFCV's writer made (samples in any order in its pages) opens and gives the same raw pixels."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    data = photos(write=WriteConfig("raw", 400, 90, 0.5))
    source = scan(Path(data.root), "val")
    images = [(decode_rgb(image.read()), int(y)) for image, y in zip(source.images, source.labels, strict=True)]
    path = tmp_path / "val.beton"
    fields = {"image": RGBImageField(write_mode="raw", max_resolution=400), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=2).from_indexed_dataset(images, chunksize=3)
    index = beton.open_index(path, data.num_classes, len(images))
    assert index.labels.tolist() == source.labels.tolist() and index.is_raw.all()
    raw = np.fromfile(path, np.uint8)
    for k in (0, 17, 40):
        stored = raw[index.starts[k] :][: index.sizes[k]].reshape(index.heights[k], index.widths[k], 3)
        if max(images[k][0].shape) <= 400:
            assert (stored == images[k][0]).all()


def other_size(payload: bytearray) -> None:
    payload[payload.index(b"\xff\xc0") + 5] ^= 2  # in the frame's header


def other_bytes(payload: bytearray, at: int, new: bytes) -> None:
    payload[at : at + len(new)] = new


JPEG_DAMAGES = {
    "zeroed": lambda payload: other_bytes(payload, 2, bytes(len(payload) - 4)),
    "cut": lambda payload: other_bytes(payload, len(payload) // 2, bytes(len(payload) - 2 - len(payload) // 2)),
    "other size": other_size,
    "not a JPEG": lambda payload: other_bytes(payload, 2, b"ab"),
    "corrupt scan": lambda payload: other_bytes(payload, len(payload) // 2, b"\xff\xc4"),
    "one bit": lambda payload: other_bytes(
        payload, len(payload) - 40, bytes([payload[-40] ^ 1])
    ),  # decodes all the same
}


def damage_a_jpeg(data, damage) -> tuple[int, bytes]:
    """Damages one of the stored JPEGs; its sample index and its bytes now."""
    index = beton.open_index(fingerprint.beton_path(data, "train"))
    sample = int(np.flatnonzero(~index.is_raw)[3])
    at, size = int(index.starts[sample]), int(index.sizes[sample])
    payload = bytearray(index.path.read_bytes()[at : at + size])
    JPEG_DAMAGES[damage](payload)
    assert len(payload) == size
    edit(index.path, at, bytes(payload))
    return sample, bytes(payload)


@pytest.fixture(params=["full", "partial"])
def decode(request, monkeypatch) -> None:
    """With the decoding of complete images, and with that of the shown part."""
    if request.param == "full":
        monkeypatch.setattr(partial_decode, "find", lambda: partial_decode.Helper(0, "test"))


@pytest.mark.usefixtures("decode")
@pytest.mark.parametrize("damage", JPEG_DAMAGES)
def test_damaged_sample_stops_and_is_named(copied, damage):
    """Stock FFCV shows the pixels of another image in its place."""
    sample, _ = damage_a_jpeg(copied, damage)
    name = fingerprint.files_path(copied, "train").read_text().splitlines()[sample]
    loader = open_train(copied, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    with pytest.raises(UserError, match=re.escape(f"sample {sample} ({name}) is damaged")) as error:
        list(loader.epoch(0))
    assert "\n" not in str(error.value)
    with loader.epoch(1) as batches, pytest.raises(UserError):
        list(batches)
    loader.close()


@pytest.mark.usefixtures("decode")
@pytest.mark.parametrize("damage", ["zeroed", "other size", "not a JPEG"])
def test_decoder_itself_reports_what_it_cannot_decode(copied, damage):
    """Without the sums: the second line of defence."""
    sample, payload = damage_a_jpeg(copied, damage)
    loader = open_train(copied, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    decoder = loader.reader.loader.graph.leaf_nodes["image"].decoder
    decoder.checksums = decoder.checksums.copy()
    decoder.checksums[sample] = zlib.adler32(payload)
    with pytest.raises(UserError, match=f"sample {sample} "):
        list(loader.epoch(0))


def test_flipped_bits_never_crash(copied):
    """Any bit of header, tables or data: refused when opened, stopped at the sample, or other pixels in one image."""
    path = fingerprint.beton_path(copied, "train")
    complete, rng = path.read_bytes(), np.random.default_rng(0)
    index = beton.open_index(path)
    regions = [(0, METADATA_AT + 61 * 24), (table_at(path), len(complete))]
    spots = [int(rng.integers(*regions[k % 2])) for k in range(60)]
    spots += [int(index.starts[s] + rng.integers(0, index.sizes[s])) for s in rng.integers(0, 61, 30)]
    outcome = {"refused": 0, "stopped": 0, "read": 0}
    for spot in spots:
        edit(path, spot, bytes([complete[spot] ^ 1 << int(rng.integers(8))]))
        try:
            loader = open_train(copied, global_batch_size=61, seed=0, rank=0, world_size=1, device="cpu")
            try:
                outcome["read"] += len(list(loader.epoch(0)))
            except UserError:
                outcome["stopped"] += 1
            loader.close()
        except UserError:
            outcome["refused"] += 1
        edit(path, spot, complete[spot : spot + 1])
    assert outcome["refused"] > 20 and outcome["stopped"] > 10, outcome


@pytest.mark.timeout(300)  # stock FFCV hangs
def test_exception_in_a_loader_thread_reaches_the_consumer(photos, monkeypatch):
    loader = open_train(photos(), global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    batches = loader.epoch(0)
    next(batches)
    monkeypatch.setattr(ffcv_reader.kernels, "train_boxes", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(batches)
    assert list(batches) == []


def test_leaving_early_leaks_neither_threads_nor_memory(photos):
    loader = open_train(photos(), global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    next(loader.epoch(0))
    before = set(threading.enumerate())
    for e in range(40):
        with loader.epoch(e) as batches:
            next(batches)
            if e % 2:
                next(batches)
    for e in range(20):  # not even closed
        next(loader.epoch(e))
    del batches
    gc.collect()
    own = loader.reader.pool._threads
    assert set(threading.enumerate()) <= before | own and len(own) == 2
    assert not [o for o in gc.get_objects() if type(o).__name__ == "FfcvBatches"]
    loader.close()
    assert not any(thread.is_alive() for thread in own)


def test_an_epoch_holds_only_a_few_batches(photos):
    """Nothing is allocated in proportion to the epoch: at most those ahead and the one in hand."""
    loader = open_train(photos(), global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    with loader.epoch(0) as batches:
        for _ in batches:
            assert len(batches.inner.pending) <= 4


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
