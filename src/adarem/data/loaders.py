"""What the trainer and the evaluation read: uint8 batches on the device, in a fixed order, whatever the backend.

Order and augmentation are pure functions of (seed, epoch, sample index): see adarem.data.images.sampling.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from adarem.data.images import holdout, sampling
from adarem.data.images.sampling import CentreCrop, RandomCrop, View
from adarem.run.config import DataConfig


class Batches(Protocol):
    """One pass over some batches on the CPU: (uint8 [b, size, size, 3], int64 [b]); also a context manager."""

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]: ...
    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]: ...
    def __enter__(self) -> "Batches": ...
    def __exit__(self, *_: object) -> None: ...
    def close(self) -> None: ...


class Reader(Protocol):
    """One split of a prepared data set, opened by a backend."""

    num_images: int
    labels: NDArray[np.signedinteger]  # [num_images]

    def read(self, batches: Sequence[NDArray[np.uint64]], pin: bool) -> Batches: ...
    def close(self) -> None: ...


def _open(data: DataConfig, split: str, view: View) -> Reader:
    if data.backend == "ffcv":
        from adarem.data.ffcv.reader import FfcvReader

        return FfcvReader(data, split, view)
    from adarem.data.images.folder_reader import FolderReader

    return FolderReader(data, split, view)


class _Copied(NamedTuple):
    """A batch whose copy to the device is done when ``event`` is."""

    images: torch.Tensor
    labels: torch.Tensor
    event: torch.cuda.Event


class OnDevice(Iterator[tuple[torch.Tensor, torch.Tensor]]):
    """Brings batches to the device: (uint8 [b, 3, H, W] with channels_last strides, int64 [b]).

    On a GPU the copy of the next batch runs on a stream of its own while the consumer computes on the current one. A
    batch stays valid as long as anyone holds it. Iterator and context manager.
    """

    def __init__(self, inner: Batches, device: torch.device) -> None:
        self.inner = inner
        self.device = device
        self.stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's
        self.ready: _Copied | None = None

    def _copy_next(self) -> None:
        assert self.stream is not None
        batch = next(self.inner, None)
        if batch is None:
            self.ready = None
            return
        with torch.cuda.stream(self.stream):
            images, labels = (t.to(self.device, non_blocking=True) for t in batch)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
            event.record(self.stream)
        self.ready = _Copied(images, labels, event)

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.stream is None:
            images, labels = next(self.inner)
            return images.permute(0, 3, 1, 2), labels
        if self.ready is None:
            self._copy_next()
        if self.ready is None:
            raise StopIteration
        images, labels, event = self.ready
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)
        for t in (images, labels):
            t.record_stream(current)  # its memory is not reused before the consumer's work on it is done
        self._copy_next()
        return images.permute(0, 3, 1, 2), labels

    def close(self) -> None:
        self.ready = None
        self.inner.close()

    def __enter__(self) -> "OnDevice":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TrainLoader:
    """The images of one rank to train on, without those that are held out.

    ``num_images`` counts those of all ranks, ``steps_per_epoch`` global batches; ``held_out`` has the places of the
    others in the data set's order, None where there are none.
    """

    def __init__(
        self,
        data: DataConfig,
        global_batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        device: torch.device,
    ) -> None:
        view = RandomCrop(seed, data.train_crop, data.crop_area, data.crop_aspect, data.flip)
        self.reader = _open(data, "train", view)
        self.seed, self.device = seed, device
        self.global_batch_size, self.rank, self.world_size = global_batch_size, rank, world_size
        self.held_out: NDArray[np.int64] | None = None
        self._places: NDArray[np.int64] | None = None  # in the data set's order; None: all
        if data.holdout is not None:
            self.held_out = holdout.held_out(self.reader.labels, data.holdout, data.holdout_seed)
            self._places = holdout.rest(self.held_out, self.reader.num_images)
        self.num_images = self.reader.num_images if self._places is None else len(self._places)
        self.steps_per_epoch = self.num_images // global_batch_size

    def epoch(self, epoch: int, start_step: int = 0) -> OnDevice:
        """Batches of global steps ``start_step`` to ``steps_per_epoch`` of one epoch; earlier ones are not read."""
        indices = sampling.train_batches(
            self.seed, epoch, self.num_images, self.global_batch_size, self.rank, self.world_size, start_step
        )
        if self._places is not None:
            indices = self._places[indices]
        return _read(self.reader, list(sampling.index_words(epoch, indices)), self.device)

    def close(self) -> None:
        self.reader.close()


class EvalLoader:
    """One rank's share of a split; over all ranks each image comes exactly once. ``num_images`` counts all of them.

    The split ``holdout`` is what ``data.holdout`` takes of the training images, with the view of an evaluation.
    """

    def __init__(
        self, data: DataConfig, split: str, batch_size: int, rank: int, world_size: int, device: torch.device
    ) -> None:
        self.reader = _open(
            data, "train" if split == "holdout" else split, CentreCrop(data.eval_resize, data.eval_crop)
        )
        self._places: NDArray[np.int64] | None = None  # of the split in the reader; None: all of it
        if split == "holdout":
            assert data.holdout is not None
            self._places = holdout.held_out(self.reader.labels, data.holdout, data.holdout_seed)
        self.num_images = self.reader.num_images if self._places is None else len(self._places)
        shard = sampling.eval_shard(self.num_images, rank, world_size)
        self.batches = [shard[i : i + batch_size] for i in range(0, len(shard), batch_size)]
        self.device = device

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """(indices int64 [b] on the CPU, images, labels); ``indices`` are places in the split's order."""
        words = [sampling.index_words(0, b if self._places is None else self._places[b]) for b in self.batches]
        with _read(self.reader, words, self.device) as batches:
            for indices, (images, labels) in zip(self.batches, batches, strict=True):
                yield torch.from_numpy(indices), images, labels

    def __len__(self) -> int:
        return len(self.batches)

    def close(self) -> None:
        self.reader.close()


def _read(reader: Reader, batches: Sequence[NDArray[np.uint64]], device: torch.device) -> OnDevice:
    return OnDevice(reader.read(batches, pin=device.type == "cuda"), device)


def open_train(
    data: DataConfig, *, global_batch_size: int, seed: int, rank: int, world_size: int, device: torch.device | str
) -> TrainLoader:
    """Opens the training split of a prepared data set for one rank; ``global_batch_size`` counts all ranks together.

    Raises:
        UserError: not prepared, damaged, or not what the config says. No thread or process has been started then.
    """
    assert global_batch_size % world_size == 0 and 0 <= rank < world_size
    return TrainLoader(data, global_batch_size, seed, rank, world_size, torch.device(device))


def open_eval(
    data: DataConfig, *, split: str = "val", batch_size: int, rank: int, world_size: int, device: torch.device | str
) -> EvalLoader:
    """Opens a split for evaluation; ``batch_size`` is one rank's.

    Raises:
        UserError: not prepared, damaged, or not what the config says. No thread or process has been started then.
    """
    assert batch_size >= 1 and 0 <= rank < world_size
    return EvalLoader(data, split, batch_size, rank, world_size, torch.device(device))
