"""Decoding a part gives the full decode's pixels, or is not used at all."""

import ctypes
import io
import subprocess

import numpy as np
import pytest
from PIL import Image

from adarem import native
from adarem.data.ffcv import partial_decode
from adarem.data.ffcv import reader as ffcv_reader
from adarem.data.ffcv.library import libffcv
from adarem.data.images import sampling
from adarem.data.loaders import open_eval, open_train
from tests.support.imagenet_tree import photograph


@pytest.fixture
def library() -> ctypes.CDLL:
    helper = partial_decode.find()
    assert helper.address, f"this machine has no compiler or no jpeglib.h: {helper.why_not}"
    return partial_decode._libraries[0]


@pytest.mark.parametrize("kind", ["4:2:0", "4:2:2", "4:4:4", "progressive", "greyscale"])
def test_a_part_equals_the_full_decode(library, kind):
    decode, rng = partial_decode.decoder(library), np.random.default_rng(1)
    compared = 0
    for n in range(40):
        width, height = (int(v) for v in rng.integers(1, 420, 2))
        buffer = io.BytesIO()
        options = {"subsampling": kind} if ":" in kind else {"progressive": kind == "progressive"}
        image = Image.fromarray(photograph(max(width, 4), max(height, 4), n)[:height, :width])
        image.convert("L" if kind == "greyscale" else "RGB").save(
            buffer, "JPEG", quality=int(rng.integers(20, 100)), **options
        )
        data = np.frombuffer(buffer.getvalue(), np.uint8)
        full = np.empty((height, width, 3), np.uint8)
        assert libffcv.imdecode(data, full, height, width, height, width, 0, 0, 1, 1, False, False) == 0
        for k in range(12):
            view = sampling.RandomCrop(n, 1, (0.001 if k % 2 else 0.08, 1.0), (0.75, 4 / 3), 0)
            box = sampling.Box(*view.box(k, height, width)[:4])
            shown = decode(data, height, width, box)
            expected = full[box.top : box.top + box.height, box.left : box.left + box.width]
            assert (shown == expected).all(), (height, width, box)
            compared += 1
    assert compared == 480


def test_batches_do_not_depend_on_it(photos, monkeypatch):
    def pixels() -> list[bytes]:
        train = open_train(photos(), global_batch_size=61, seed=2, rank=0, world_size=1, device="cpu")
        val = open_eval(photos(), batch_size=41, rank=0, world_size=1, device="cpu")
        found = [x.numpy().tobytes() for e in range(4) for x, _ in train.epoch(e)] + [
            x.numpy().tobytes() for _, x, _ in val
        ]
        assert train.reader.loader.graph.leaf_nodes["image"].decoder.decode_box == partial_decode.find().address
        return found

    with_helper = pixels()
    monkeypatch.setattr(ffcv_reader.partial_decode, "find", lambda: partial_decode.Helper(0, "test"))
    assert pixels() == with_helper


def test_other_pixels_are_not_used(monkeypatch, tmp_path):
    """A build with another inverse DCT takes the place of a libjpeg that decodes otherwise."""
    other = tmp_path / "other.c"
    other.write_text(partial_decode.SOURCE.read_text().replace("JDCT_IFAST", "JDCT_ISLOW"))
    monkeypatch.setattr(partial_decode, "SOURCE", other)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.warns(native.SlowerWarning, match="^other.c: its pixels differ from FFCV's decode; install"):
        assert partial_decode.find.__wrapped__().address == 0


def test_without_a_compiler_nothing_but_speed_changes(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    no_header = tmp_path / "cc"
    no_header.write_text("#!/bin/sh\necho 'x.c:3:10: fatal error: jpeglib.h: No such file or directory' >&2; exit 1\n")
    no_header.chmod(0o755)
    for compiler, why in (("no-such-cc", "no such program"), ("false", "exit code 1"), (str(no_header), "jpeglib.h")):
        monkeypatch.setenv("CC", compiler)
        with pytest.warns(native.SlowerWarning) as caught:
            address, reason = partial_decode.find.__wrapped__()
        assert address == 0 and why in reason
        (line,) = (str(w.message) for w in caught)
        assert line == f"{reason} (until then complete images are decoded, or with ADAREM_DECODE=full)"


def test_switch(monkeypatch):
    monkeypatch.setenv("ADAREM_DECODE", "full")
    assert partial_decode.find.__wrapped__() == (0, "switched off by ADAREM_DECODE=full")


def test_c_source_has_no_warnings(tmp_path):
    command = [
        "cc",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Wno-clobbered",
        "-Wno-sign-compare",
        "-O2",
        "-c",
        partial_decode.SOURCE,
    ]
    done = subprocess.run([*command, "-o", tmp_path / "x.o"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr
