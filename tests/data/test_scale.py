"""At ImageNet's full count, with tiny images: opening and reading make no object of Python for each sample."""

import json
import subprocess
import sys
import zlib

import numpy as np
import pytest

from adarem.data import fingerprint
from adarem.data.ffcv import beton
from adarem.data.ffcv.encode import Encoded
from adarem.data.ffcv.writer import BetonFile
from adarem.data.staged import Staged
from tests.support.imagenet_tree import jpeg, photograph
from tests.support.photos import data_config

N, CLASSES = 1_281_167, 1000

PROGRAM = """
import gc, json, sys, time
from pathlib import Path
import numpy as np, torch
from tests.support.photos import data_config
from adarem.data.ffcv import reader as ffcv_reader
from adarem.data.images import sampling
from adarem.data.loaders import open_train

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

data = data_config(Path({root!r}), num_classes={classes}, train_crop=32, workers=2)
gc.collect()
before, objects, start = resident(), len(gc.get_objects()), time.perf_counter()
loader = open_train(data, global_batch_size=1024, seed=1, rank=3, world_size=16, device="cpu")
opened, held = time.perf_counter() - start, resident() - before
objects = len(gc.get_objects()) - objects
start = time.perf_counter()
sampling.order(1, 7, loader.num_images)
order = time.perf_counter() - start
start = time.perf_counter()
labels = []
with loader.epoch(7, start_step=loader.steps_per_epoch - 3) as batches:
    for images, y in batches:
        labels += y.tolist()
first = time.perf_counter() - start
print(json.dumps(dict(n=loader.num_images, steps=loader.steps_per_epoch, opened=opened, held=held, objects=objects,
                      order=order, last_three_steps=first, labels=labels, after=resident() - before)))
"""


@pytest.mark.slow
def test_full_count(tmp_path, record_property):
    data = data_config(tmp_path, num_classes=CLASSES, train_crop=32, workers=2)
    path = fingerprint.beton_path(data, "train")
    path.parent.mkdir()
    pictures = [photograph(w, h, w) for w, h in ((16, 12), (12, 16), (10, 10), (20, 8))]
    payloads = [(beton.RAW, p, p.tobytes()) for p in pictures]
    payloads += [(beton.JPG, p, jpeg(p, quality=30)) for p in pictures[:2]]
    stored = [
        Encoded(mode, *p.shape[:2], b"", payload, checksum=zlib.adler32(payload)) for mode, p, payload in payloads
    ]
    labels = np.sort(np.random.default_rng(0).integers(0, CLASSES, N))
    staged = Staged()
    out = BetonFile(staged, path, N, max_side=500)
    for k, label in enumerate(labels.tolist()):
        out.append(stored[k % len(stored)], label)
    out.finish()
    staged.commit()
    index = beton.open_index(path, CLASSES, N)
    assert (index.labels == labels).all()
    record = {"num_images": N, "file_bytes": index.file_bytes, "index_crc32": fingerprint.index_crc32(index)}
    record["sums_crc32"] = zlib.crc32(out.checksums)
    fingerprint.checksums_path(data, "train").write_bytes(out.checksums.tobytes())
    fingerprint.fingerprint_path(data, "train").write_text(fingerprint.text(record))
    script = PROGRAM.format(root=str(tmp_path), classes=CLASSES)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    from adarem.data.images.sampling import train_batches

    expected = labels[train_batches(1, 7, N, 1024, 3, 16, N // 1024 - 3).ravel()]
    assert found.pop("labels") == expected.tolist()
    record_property("measured", found)
    print(found, f"{index.file_bytes / 1e6:.0f} MB file")
    assert (found["n"], found["steps"]) == (N, 1251)
    # FFCV's own loader takes 615 MB and 4 s, for dictionaries and sets of every sample.
    assert found["held"] < 150 and found["after"] < 300, found
    assert found["objects"] < N / 100, found
