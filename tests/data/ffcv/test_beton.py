"""The file format is FFCV's; damaged files are one clear line, never a crash, a hang or other pixels."""

import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adarem.data import fingerprint
from adarem.data.ffcv import beton, kernels, partial_decode
from adarem.data.ffcv import reader as ffcv_reader
from adarem.data.ffcv.encode import encode
from adarem.data.images.sampling import CentreCrop
from adarem.data.images.source import decode_rgb, scan
from adarem.data.loaders import open_eval, open_train
from adarem.data.prepare import prepare
from adarem.run.config import WriteConfig
from adarem.run.errors import UserError
from tests.support.imagenet_tree import photograph
from tests.support.photos import data_config, make_photos

METADATA_AT = beton.HEADER.itemsize + 2 * beton.FIELD.itemsize


def test_structures_are_ffcvs():
    from ffcv import types

    assert types.HeaderType == beton.HEADER and types.CURRENT_VERSION == beton.VERSION
    assert types.FieldDescType == beton.FIELD and types.ALLOC_TABLE_TYPE == beton.ALLOCATION
    from ffcv.fields import IntField, RGBImageField

    assert types.get_metadata_type([RGBImageField(), IntField()]) == beton.METADATA
    assert [types.TYPE_ID_HANDLER[i] for _, i in beton.FIELDS] == [RGBImageField, IntField]


@pytest.mark.parametrize("mode", ["raw", "jpg"])
@pytest.mark.parametrize("max_side", [120, 400])
def test_images_are_encoded_as_ffcvs_field_does(mode, max_side):
    from ffcv.fields import RGBImageField

    image = photograph(301, 200, seed=1)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    found = encode(buffer.getvalue(), WriteConfig(mode, max_side, 85, 0.5))
    metadata, stored = np.zeros(1, beton.IMAGE), []

    def malloc(size: int) -> tuple[int, np.ndarray]:
        stored.append(np.zeros(size, np.uint8))
        return 0, stored[-1]

    RGBImageField(write_mode=mode, max_resolution=max_side, jpeg_quality=85).encode(metadata, image, malloc)
    assert found.payload == stored[0].tobytes()
    assert (found.mode, found.width, found.height) == tuple(metadata[0].tolist()[:3])


def test_stock_ffcv_reads_our_files(photos, monkeypatch):
    """FFCV's own loader and decoder see the same pixels and labels: the file is a .beton like any other."""

    def ffcvs_box(self: CentreCrop, word: int, height: int, width: int) -> tuple[int, int, int, int, bool]:
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side, False

    monkeypatch.setattr(CentreCrop, "box", ffcvs_box)
    import ffcv.fields.decoders
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    data = photos(eval_resize=96, eval_crop=96)
    decoder = ffcv.fields.decoders.CenterCropRGBImageDecoder((96, 96), ratio=1)
    stock = Loader(
        str(fingerprint.beton_path(data, "val")),
        batch_size=8,
        num_workers=1,
        order=OrderOption.SEQUENTIAL,
        drop_last=False,
        os_cache=True,
        pipelines={"image": [decoder, ToTensor()]},
    )
    ours = open_eval(data, batch_size=8, rank=0, world_size=1, device="cpu")
    for (x, y), (_, images, labels) in zip(stock, ours, strict=True):
        assert torch.equal(x, images.permute(0, 2, 3, 1)) and torch.equal(y.flatten(), labels)


def test_our_loader_reads_stock_ffcvs_files(photos, tmp_path):
    """A file that FFCV's writer made (samples in any order in its pages) opens and gives the same raw pixels."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    data = photos(write=WriteConfig("raw", 400, 90, 0.5))
    source = scan(Path(data.root), "val")
    images = [
        (decode_rgb((source.folder / f).read_bytes()), int(y)) for f, y in zip(source.files, source.labels, strict=True)
    ]
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


# --- damaged files ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    make_photos(root)
    prepare(data_config(root), workers=1, progress=False)
    return root


@pytest.fixture
def copy(whole, tmp_path) -> Callable:
    shutil.copytree(whole / "ffcv", tmp_path / "ffcv")
    return data_config(whole, beton_dir=str(tmp_path / "ffcv"))


def edit(path: Path, at: int, value: bytes) -> None:
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(value)


def truncate(keep: Callable[[int], int]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[: keep(path.stat().st_size)])


def patch(dtype: np.dtype, at: Callable[[Path], int] | int, field: str, value: int, record: int = 5):
    """Overwrites one field of one record of a table in the file."""

    def change(path: Path) -> None:
        start = at(path) if callable(at) else at
        table = np.fromfile(path, dtype, record + 1, offset=start)
        column = table
        for part in field.split("."):
            column = column[part]
        column[record] = value
        edit(path, start, table.tobytes())

    return change


def table_at(path: Path) -> int:
    return int(np.fromfile(path, beton.HEADER, 1)[0]["alloc_table_ptr"])


def swap_json(path: Path) -> None:
    shutil.copy(path.with_name("val.beton.json"), path.with_name("train.beton.json"))


def swap_beton(path: Path) -> None:
    shutil.copy(path.with_name("val.beton"), path)


def only_partial(path: Path) -> None:
    path.rename(path.with_name(f".{path.name}.0123456789abcdef.partial"))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def stop_json(path: Path) -> None:
    path.with_name("train.beton.json").write_text('{"format": 1, "split"')


def same_layout_other_labels(path: Path) -> None:
    patch(beton.METADATA, METADATA_AT, "f1", 3, record=0)(path)


header = {
    name: patch(beton.HEADER, 0, name, value, 0)
    for name, value in {
        "version": 9,
        "num_fields": 3,
        "page_size": 12345,
        "num_samples": 62,
        "alloc_table_ptr": 0,
    }.items()
}
DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (Path.unlink, "no such file; `adarem prepare` writes it"),
    "still being written": (only_partial, "no such file ..train.beton.0123456789abcdef.partial is"),
    "a folder": (folder, "not a file"),
    "empty": (truncate(lambda n: 0), "an empty file"),
    "a few bytes": (truncate(lambda n: 100), "too short for a .beton"),
    "a JPEG": (lambda p: p.write_bytes(b"\xff\xd8\xff\xe0" + bytes(5000)), "not a .beton of format version 2"),
    "random bytes": (lambda p: p.write_bytes(np.random.default_rng(0).bytes(9000)), "not a .beton of format version 2"),
    "text": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n" * 100), "not a .beton"),
    "cut by one byte": (truncate(lambda n: n - 1), "truncated or changed"),
    "cut in the table": (truncate(lambda n: n - 24 * 7), "truncated or changed"),
    "cut in the data": (truncate(lambda n: n // 2), "truncated or changed"),
    "cut in the metadata": (truncate(lambda n: METADATA_AT + 30), "truncated or changed"),
    "appended to": (lambda p: p.write_bytes(p.read_bytes() + b"x"), "truncated or changed"),
    "other version": (header["version"], "not a .beton of format version 2"),
    "other number of fields": (header["num_fields"], "not a .beton of format version 2"),
    "other field names": (lambda p: edit(p, beton.HEADER.itemsize + 1, b"pixel"), "holds the fields pixel, label"),
    "page size": (header["page_size"], "page size 12345"),
    "more samples claimed": (header["num_samples"], "truncated or changed"),
    "writer killed at the end": (header["alloc_table_ptr"], "its writer never finished it"),
    "wild pointer in the table": (patch(beton.ALLOCATION, table_at, "ptr", 1 << 60), "outside the data pages"),
    "wild pointer in metadata": (patch(beton.METADATA, METADATA_AT, "f0.data_ptr", 1 << 60), "disagree"),
    "wild size": (patch(beton.ALLOCATION, table_at, "size", 1 << 40), "outside the data pages"),
    "size of zero": (patch(beton.ALLOCATION, table_at, "size", 0), "outside the data pages"),
    "overlap": (patch(beton.ALLOCATION, table_at, "size", 3_000_000), "overlap|page boundary"),
    "sample listed twice": (patch(beton.ALLOCATION, table_at, "sample_id", 4), "list every sample once"),
    "storage mode": (patch(beton.METADATA, METADATA_AT, "f0.mode", 7), "unknown storage mode"),
    "image of no pixels": (patch(beton.METADATA, METADATA_AT, "f0.width", 0), "no pixels"),
    "label too large": (patch(beton.METADATA, METADATA_AT, "f1", 5000), "labels up to 5000"),
    "negative label": (patch(beton.METADATA, METADATA_AT, "f1", -1), "label -1"),
    "edited label": (same_layout_other_labels, "not the file that train.beton.json describes"),
    "other split's file": (swap_beton, "holds 41 samples where its fingerprint says 61"),
    "other split's fingerprint": (swap_json, "holds 61 samples where its fingerprint says 41"),
    "no fingerprint": (lambda p: p.with_name("train.beton.json").unlink(), "no such file; `adarem prepare"),
    "no sums": (lambda p: p.with_name("train.beton.sums").unlink(), "train.beton.sums: missing or damaged"),
    "other sums": (lambda p: edit(p.with_name("train.beton.sums"), 8, b"1234"), "train.beton.sums: missing or damaged"),
    "half a fingerprint": (stop_json, "not readable as JSON"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_file_is_one_line_at_once(name, copy, record_property):
    damage, message = DAMAGED[name]
    path = fingerprint.beton_path(copy, "train")
    damage(path)
    start = time.process_time()
    with pytest.raises(UserError, match=message) as error:
        open_train(copy, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    assert time.process_time() - start < 0.5
    text = str(error.value)
    assert "\n" not in text and str(path) in text
    assert re.search(r"adarem prepare|num_classes", text)  # the remedy
    record_property("message", text)


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
def test_damaged_sample_stops_and_is_named(copy, damage):
    """Stock FFCV shows the pixels of another image in its place."""
    sample, _ = damage_a_jpeg(copy, damage)
    name = fingerprint.files_path(copy, "train").read_text().splitlines()[sample]
    loader = open_train(copy, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    with pytest.raises(UserError, match=re.escape(f"sample {sample} ({name}) is damaged")) as error:
        list(loader.epoch(0))
    assert "\n" not in str(error.value)
    with loader.epoch(1) as batches, pytest.raises(UserError):
        list(batches)
    loader.close()


@pytest.mark.usefixtures("decode")
@pytest.mark.parametrize("damage", ["zeroed", "other size", "not a JPEG"])
def test_decoder_itself_reports_what_it_cannot_decode(copy, damage):
    """Without the sums: the second line of defence."""
    sample, payload = damage_a_jpeg(copy, damage)
    loader = open_train(copy, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    decoder = loader.reader.loader.graph.leaf_nodes["image"].decoder
    decoder.checksums = decoder.checksums.copy()
    decoder.checksums[sample] = zlib.adler32(payload)
    with pytest.raises(UserError, match=f"sample {sample} "):
        list(loader.epoch(0))


def test_compiled_adler32_is_zlibs():
    rng = np.random.default_rng(0)
    for size in (0, 1, 4095, 4096, 4097, 100_000):
        for data in (rng.integers(0, 256, size, np.uint8), np.full(size, 255, np.uint8)):
            assert kernels.adler32(data) == zlib.adler32(data)


def test_bytes_that_decode_but_changed_are_found_by_verify(copy):
    index = beton.open_index(fingerprint.beton_path(copy, "train"))
    raw = int(np.flatnonzero(index.is_raw)[0])
    edit(index.path, int(index.starts[raw]) + 1000, b"\x00\x01")
    open_train(copy, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")  # cannot see it
    with pytest.raises(UserError, match="its images differ from its fingerprint"):
        prepare(copy, workers=1, verify=True, progress=False)


def test_flipped_bits_never_crash(copy):
    """Any bit of header, tables or data: refused when opened, stopped at the sample, or other pixels in one image."""
    path = fingerprint.beton_path(copy, "train")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    index = beton.open_index(path)
    regions = [(0, METADATA_AT + 61 * 24), (table_at(path), len(whole))]
    spots = [int(rng.integers(*regions[k % 2])) for k in range(60)]
    spots += [int(index.starts[s] + rng.integers(0, index.sizes[s])) for s in rng.integers(0, 61, 30)]
    outcome = {"refused": 0, "stopped": 0, "read": 0}
    for spot in spots:
        edit(path, spot, bytes([whole[spot] ^ 1 << int(rng.integers(8))]))
        try:
            loader = open_train(copy, global_batch_size=61, seed=0, rank=0, world_size=1, device="cpu")
            try:
                outcome["read"] += len(list(loader.epoch(0)))
            except UserError:
                outcome["stopped"] += 1
            loader.close()
        except UserError:
            outcome["refused"] += 1
        edit(path, spot, whole[spot : spot + 1])
    assert outcome["refused"] > 20 and outcome["stopped"] > 10, outcome


def test_exception_in_a_loader_thread_reaches_the_consumer(photos, monkeypatch):
    loader = open_train(photos(), global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    batches = loader.epoch(0)
    next(batches)
    monkeypatch.setattr(ffcv_reader.kernels, "train_boxes", lambda *a: 1 / 0)
    start = time.perf_counter()
    with pytest.raises(ZeroDivisionError):
        list(batches)
    assert time.perf_counter() - start < 5
    assert list(batches) == []


def test_class_count_against_the_model(copy):
    with pytest.raises(UserError, match="labels up to 6, data.num_classes is 5; set it to 7"):
        open_eval(dataclasses.replace(copy, num_classes=5), batch_size=4, rank=0, world_size=1, device="cpu")


def test_other_ffcv_version_is_refused():
    program = """
import importlib.metadata
real = importlib.metadata.version
importlib.metadata.version = lambda name: "1.1.0" if name == "ffcv" else real(name)
import adarem.data.ffcv.library
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "UserError: data.backend=ffcv: needs ffcv 1.0.2, found 1.1.0; run `pip install" in done.stderr


def test_fingerprint_is_one_json_object(copy):
    found = fingerprint.read_fingerprint(copy, "train")
    assert found == json.loads(fingerprint.fingerprint_path(copy, "train").read_text())
    assert found["num_images"] == 61 and found["num_classes"] == 7 and found["write"]["mode"] == "proportion"
    assert found["versions"]["ffcv"] == "1.0.2" and len(found["content_hash"]) == 64
