"""What the trainer reads: the same pixels whatever the workers, the ranks and where it starts; each image once."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from adarem.data import fingerprint
from adarem.data.images import sampling
from adarem.data.loaders import open_eval, open_train
from tests.support.photos import TRAIN, VAL

BATCH, SEED = 12, 3
STEPS = TRAIN // BATCH
Seen = dict[tuple[int, int], tuple[str, int]]  # (step, sample) -> (hash of the pixels, label)


def read_epoch(data, epoch: int, rank: int = 0, world: int = 1, start: int = 0) -> Seen:
    loader = open_train(data, global_batch_size=BATCH, seed=SEED, rank=rank, world_size=world, device="cpu")
    assert (loader.num_images, loader.steps_per_epoch) == (TRAIN, STEPS)
    indices = sampling.train_batches(SEED, epoch, TRAIN, BATCH, rank, world, start)
    seen: Seen = {}
    with loader.epoch(epoch, start) as batches:
        for step, (images, labels) in enumerate(batches):
            for sample, image, label in zip(indices[step].tolist(), images, labels, strict=True):
                seen[start + step, sample] = (hashlib.sha256(image.numpy().tobytes()).hexdigest(), int(label))
    loader.close()
    assert len(seen) == indices.size
    return seen


@pytest.fixture(scope="module", params=["ffcv", "folder"])
def reference(request, photos) -> tuple[str, list[Seen]]:
    data = photos(backend=request.param, workers=1)
    return request.param, [read_epoch(data, e) for e in (0, 1)]


def test_pixels_do_not_depend_on_the_number_of_workers(photos, reference):
    backend, (first, second) = reference
    for workers in (1, 2, 5) if backend == "ffcv" else (2,):
        data = photos(backend=backend, workers=workers)
        assert read_epoch(data, 1) == second
        assert read_epoch(data, 0) == first  # epochs in any order
    assert {k: v for k, v in first.items() if second.get(k) == v} == {}


def test_pixels_do_not_depend_on_the_world_size(photos, reference):
    backend, (_, second) = reference
    for world in (2, 3, 4, 12) if backend == "ffcv" else (3,):
        parts = [read_epoch(photos(backend=backend), 1, r, world) for r in range(world)]
        assert {k: v for part in parts for k, v in part.items()} == second


def test_an_epoch_can_start_at_any_step(photos, reference):
    backend, (_, second) = reference
    for start in range(STEPS + 1) if backend == "ffcv" else (2, STEPS):
        expected = {k: v for k, v in second.items() if k[0] >= start}
        assert read_epoch(photos(backend=backend), 1, 0, 1, start) == expected
        assert [k for k in read_epoch(photos(backend=backend), 1, 1, 2, start) if k not in expected] == []


def test_another_process_sees_the_same(photos, reference):
    backend, (_, second) = reference
    program = f"""
from pathlib import Path
from tests.data.test_loaders import read_epoch
from tests.support.photos import data_config
if __name__ == "__main__":
    data = data_config(Path({photos().root!r}), backend={backend!r}, workers=1)
    print(sorted(read_epoch(data, 1).items()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == str(sorted(second.items())), done.stderr


@pytest.mark.parametrize("backend", ["ffcv", "folder"])
def test_each_validation_image_comes_once_in_any_world(photos, backend):
    expected = {}
    data = photos(backend=backend)
    worlds = (1, 2, 3, 8, 12, 16, 50) if backend == "ffcv" else (1, 16)
    for world in worlds:  # 50 ranks over 41 images: some have none
        seen, batches = {}, []
        for rank in range(world):
            loader = open_eval(data, batch_size=7, rank=rank, world_size=world, device="cpu")
            assert loader.num_images == VAL
            for indices, images, labels in loader:
                batches.append(len(indices))
                for i, image, label in zip(indices.tolist(), images, labels, strict=True):
                    assert i not in seen
                    seen[i] = (image.numpy().tobytes(), int(label))
            loader.close()
        assert sorted(seen) == list(range(VAL)) and max(batches) <= 7
        expected = expected or seen
        assert seen == expected


def test_eval_twice_is_the_same(photos):
    loader = open_eval(photos(), batch_size=16, rank=0, world_size=1, device="cpu")
    first, second = ([(i, x, y) for i, x, y in loader] for _ in range(2))
    assert len(loader) == len(first) == 3
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("backend", ["ffcv", "folder"])
def test_shape_type_and_layout(photos, backend):
    loader = open_train(photos(backend=backend), global_batch_size=8, seed=0, rank=1, world_size=2, device="cpu")
    with loader.epoch(0) as batches:
        images, labels = next(batches)
    assert images.shape == (4, 3, 96, 96) and images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (4,) and labels.dtype == torch.int64


def test_batches_belong_to_whoever_takes_them(photos):
    """FFCV's own batches are views of a ring of buffers: the sixth overwrites the first."""
    loader = open_train(photos(), global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    kept, copies = [], []
    for images, _ in loader.epoch(0):
        kept.append(images)
        copies.append(images.clone())
    assert len(kept) == 15
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
    assert len({t.data_ptr() for t in kept}) == 15


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backend", ["ffcv", "folder"])
def test_on_a_gpu_the_same(photos, backend):
    data = photos(backend=backend)
    loaders = [open_train(data, global_batch_size=6, seed=0, rank=0, world_size=1, device=d) for d in ("cpu", "cuda")]
    expected, found = (list(x.epoch(0)) for x in loaders)  # kept, all of them, while later ones are copied
    for (a, y), (b, z) in zip(expected, found, strict=True):
        assert b.is_cuda and b.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(a, b.cpu()) and torch.equal(y, z.cpu())


def test_backends_show_the_same_crops(photos):
    """The same part of the same image, mirrored alike; what differs is interpolation and the stored JPEG."""
    loaders = [
        open_train(photos(backend=b), global_batch_size=12, seed=5, rank=0, world_size=1, device="cpu")
        for b in ("ffcv", "folder")
    ]
    for (a, label_a), (b, label_b) in zip(*(x.epoch(2) for x in loaders), strict=True):
        assert torch.equal(label_a, label_b)
        for x, y in zip(a.float(), b.float(), strict=True):
            same = np.corrcoef(x.flatten(), y.flatten())[0, 1]
            mirrored = np.corrcoef(x.flip(-1).flatten(), y.flatten())[0, 1]
            assert same > 0.9 and same > mirrored


def test_backends_show_the_same_validation_images(photos):
    loaders = [
        open_eval(photos(backend=b), batch_size=8, rank=0, world_size=1, device="cpu") for b in ("ffcv", "folder")
    ]
    for (i, x, label_x), (j, y, label_y) in zip(*loaders, strict=True):
        assert torch.equal(i, j) and torch.equal(label_x, label_y)
        assert (x.float() - y.float()).abs().mean() < 12


@pytest.mark.parametrize("backend", ["ffcv", "folder"])
def test_held_out_images_are_evaluated_once_and_never_trained_on(photos, backend, monkeypatch):
    monkeypatch.setattr("adarem.data.fingerprint.beton_path", _only_train(fingerprint.beton_path))
    monkeypatch.setattr("adarem.data.fingerprint.fingerprint_path", _only_train(fingerprint.fingerprint_path))
    data = photos(backend=backend, holdout=14, holdout_seed=5, workers=1)
    evaluated: dict[int, tuple[bytes, int]] = {}
    for rank in range(3):
        loader = open_eval(data, split="holdout", batch_size=4, rank=rank, world_size=3, device="cpu")
        assert loader.num_images == 14
        for indices, images, labels in loader:
            for i, image, label in zip(indices.tolist(), images, labels, strict=True):
                assert i not in evaluated
                evaluated[i] = (image.numpy().tobytes(), int(label))
        loader.close()
    assert sorted(evaluated) == list(range(14))
    # As an evaluation shows these images of the training file.
    complete = open_eval(photos(backend=backend), split="train", batch_size=61, rank=0, world_size=1, device="cpu")
    ((_, images, labels),) = list(complete)
    train = open_train(data, global_batch_size=6, seed=SEED, rank=0, world_size=1, device="cpu")
    held = train.held_out.tolist()
    assert evaluated == {i: (images[p].numpy().tobytes(), int(labels[p])) for i, p in enumerate(held)}
    # Training reads all others, with the crops that they have without a holdout, in any world.
    assert (train.num_images, train.steps_per_epoch) == (TRAIN - 14, (TRAIN - 14) // 6)
    with train.epoch(1) as batches:
        shown = [image.numpy().tobytes() for batch, _ in batches for image in batch]
    everything = open_train(
        photos(backend=backend), global_batch_size=61, seed=SEED, rank=0, world_size=1, device="cpu"
    )
    with everything.epoch(1) as batches:
        ((crops, _),) = list(batches)
    places = sampling.order(SEED, 1, TRAIN).tolist()
    of_held = {crops[k].numpy().tobytes() for k, place in enumerate(places) if place in held}
    of_rest = {crops[k].numpy().tobytes() for k, place in enumerate(places) if place not in held}
    assert {*shown} <= of_rest - of_held and len({*shown}) == 42
    halves = []
    for rank in range(2):
        half = open_train(data, global_batch_size=6, seed=SEED, rank=rank, world_size=2, device="cpu")
        with half.epoch(1) as batches:
            halves += [image.numpy().tobytes() for batch, _ in batches for image in batch]
    assert sorted(halves) == sorted(shown)


def test_both_backends_hold_out_the_same_images(photos):
    held = [
        open_train(
            photos(backend=b, holdout=0.2), global_batch_size=6, seed=0, rank=0, world_size=1, device="cpu"
        ).held_out
        for b in ("ffcv", "folder")
    ]
    assert held[0].tolist() == held[1].tolist() and len(held[0]) == 12


def _only_train(real):
    def path(data, split):
        assert split == "train", "the split that a table reports is not opened"
        return real(data, split)

    return path
