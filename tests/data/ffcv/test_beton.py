"""The file format is FFCV's; a damaged file is one clear line before anything is started."""

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adarem.data import fingerprint
from adarem.data.ffcv import beton
from adarem.data.ffcv import reader as ffcv_reader
from adarem.data.loaders import open_eval, open_train
from adarem.run.errors import UserError
from tests.support.beton_damage import METADATA_AT, edit, table_at


def test_structures_are_ffcvs():
    from ffcv import types

    assert types.HeaderType == beton.HEADER and types.CURRENT_VERSION == beton.VERSION
    assert types.FieldDescType == beton.FIELD and types.ALLOC_TABLE_TYPE == beton.ALLOCATION
    from ffcv.fields import IntField, RGBImageField

    assert types.get_metadata_type([RGBImageField(), IntField()]) == beton.METADATA
    assert [types.TYPE_ID_HANDLER[i] for _, i in beton.FIELDS] == [RGBImageField, IntField]


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
def test_damaged_file_is_one_line_before_anything_starts(name, copied, monkeypatch, record_property):
    damage, message = DAMAGED[name]
    path = fingerprint.beton_path(copied, "train")
    damage(path)
    for name in ("_open", "ThreadPoolExecutor"):  # neither FFCV nor a thread is started for such a file
        monkeypatch.setattr(ffcv_reader, name, lambda *a, **k: pytest.fail("started"))
    with pytest.raises(UserError, match=message) as error:
        open_train(copied, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    text = str(error.value)
    assert "\n" not in text and str(path) in text
    assert re.search(r"adarem prepare|num_classes", text)  # the remedy
    record_property("message", text)


def test_class_count_against_the_model(copied):
    with pytest.raises(UserError, match="labels up to 6, data.num_classes is 5; set it to 7"):
        open_eval(dataclasses.replace(copied, num_classes=5), batch_size=4, rank=0, world_size=1, device="cpu")
