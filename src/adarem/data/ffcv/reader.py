"""Reads a .beton through FFCV's Loader, with operations, memory manager and iteration of this package.

FFCV gives the file format, the pipeline of operations and the C library that decodes and resizes. Replaced are the
operations (counter-based random numbers, decode errors reported), the memory manager (FFCV's builds Python dictionaries
of every sample: 615 MB and 4 s a rank for ImageNet) and the iteration: threads fill small parts of fresh batches, so an
exception reaches the consumer, a batch belongs to whoever takes it, and an iteration that is left early leaves no
thread and no memory behind.
"""

import collections
import contextlib
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, NoReturn
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from adarem.data import fingerprint
from adarem.data.ffcv import kernels, partial_decode
from adarem.data.ffcv.library import (
    AllocationQuery,
    Compiler,
    Loader,
    MemoryManager,
    Operation,
    OrderOption,
    PipelineSpec,
    Reader,
    State,
    address_of,
    libffcv,
    loader_module,
)
from adarem.data.images.sampling import INDEX_MASK, RandomCrop, View
from adarem.run.config import DataConfig
from adarem.run.errors import UserError

AHEAD = 3  # batches that are being filled while the consumer holds one
PARTS = 4  # parts a batch and worker: small enough to even out slow images, large enough to hide Python
_MASK = np.uint64(INDEX_MASK)
_IMDECODE, _RESIZE = address_of(libffcv.ctypes_imdecode), address_of(libffcv.ctypes_resize)


class Storage(NamedTuple):
    """What FFCV passes to every decoder: the file, and how long each sample's bytes are."""

    mapped: NDArray[np.uint8]
    sizes: NDArray[np.uint32]  # [n]


class DecodeError(Exception):
    """Carries the index of the sample that does not decode."""

    def __init__(self, sample: int) -> None:
        super().__init__(sample)
        self.sample = sample


class ViewDecoder(Operation):  # type: ignore[misc]  # ffcv has no types
    """FFCV decoder: index words -> uint8 [b, size, size, 3] of what ``view`` shows of each sample."""

    def __init__(self, view: View, checksums: NDArray[np.uint32]) -> None:
        super().__init__()
        self.view, self.checksums = view, checksums
        self.decode_box = partial_decode.find().address

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        shape, dtype = (self.view.size, self.view.size, 3), np.dtype("u1")
        return replace(previous_state, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)

    def boxes(
        self, words: NDArray[np.uint64], heights: NDArray[np.uint16], widths: NDArray[np.uint16]
    ) -> NDArray[np.int64]:
        """int64 [b, 5]: top, left, height, width, flip (0 or 1) of what is shown of each sample."""
        view = self.view
        if isinstance(view, RandomCrop):
            return kernels.train_boxes(
                np.uint64(view.seed),
                words,
                heights,
                widths,
                view.area[0],
                view.area[1],
                view.aspect[0],
                view.aspect[1],
                float(view.flip),
            )
        sizes = zip(heights.tolist(), widths.tolist(), strict=True)
        return np.array([view.box(0, h, w) for h, w in sizes], np.int64).reshape(-1, 5)

    def generate_code(self) -> Callable[..., NDArray[np.uint8]]:
        def decode(
            words: NDArray[np.uint64], out: NDArray[np.uint8], metadata: NDArray[np.void], storage: Storage
        ) -> NDArray[np.uint8]:
            samples = words & _MASK
            mapped, sizes = storage
            fields = metadata[samples]
            heights, widths = fields["height"].copy(), fields["width"].copy()
            failed = kernels.decode_boxes(
                _IMDECODE,
                self.decode_box,
                _RESIZE,
                mapped,
                fields["data_ptr"].copy(),
                sizes[samples],
                self.checksums[samples],
                heights,
                widths,
                fields["mode"] == 1,
                self.boxes(words, heights, widths),
                out,
            )
            if failed >= 0:
                raise DecodeError(int(samples[failed]))
            return out

        return decode


class LabelDecoder(Operation):  # type: ignore[misc]  # ffcv has no types
    """FFCV decoder: index words -> int64 [b] labels."""

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        return replace(previous_state, shape=(), dtype=np.dtype("i8")), None

    def generate_code(self) -> Callable[..., NDArray[np.int64]]:
        def decode(words: NDArray[np.uint64], _: None, metadata: NDArray[np.int64], __: Storage) -> NDArray[np.int64]:
            labels: NDArray[np.int64] = metadata[words & _MASK]
            return labels

        return decode


class MappedFile(MemoryManager):  # type: ignore[misc]  # ffcv has no types
    """FFCV memory manager: the file mapped into memory (the operating system's cache), and each sample's length."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        table = reader.alloc_table
        self.sizes = np.empty(len(table), np.uint32)
        self.sizes[table["sample_id"]] = table["size"]
        self.mapped = np.asarray(np.memmap(reader.file_name, np.uint8, mode="r"))
        reader.alloc_table = None  # 24 bytes a sample, not used any more

    @property
    def state(self) -> Storage:
        return Storage(self.mapped, self.sizes)

    def compile_reader(self) -> None:
        return None  # the decoder reads the mapping itself

    def schedule_epoch(self, batches: object) -> NoReturn:
        raise NotImplementedError("FfcvReader.read schedules")

    @property
    def state_type(self) -> NoReturn:
        raise NotImplementedError("nothing is compiled against the state")


class FfcvReader:
    """One split of a prepared data set, seen through ``view``."""

    def __init__(self, data: DataConfig, split: str, view: View) -> None:
        opened = fingerprint.open_beton(data, split)  # before anything starts: FFCV crashes on damaged files
        self.path = fingerprint.beton_path(data, split)
        self.files = fingerprint.files_path(data, split)
        self.view, self.workers = view, data.workers
        self.loader = _open(self.path, ViewDecoder(view, opened.checksums))
        self.num_images = int(self.loader.reader.num_samples)
        self.labels = opened.index.labels
        self.pool = ThreadPoolExecutor(self.workers, thread_name_prefix=f"ffcv-{split}")
        self._finalizer = weakref.finalize(self, self.pool.shutdown, wait=False, cancel_futures=True)

    def read(self, batches: Sequence[NDArray[np.uint64]], pin: bool) -> "FfcvBatches":
        """Iterates over (uint8 [b, size, size, 3], int64 [b]) CPU tensors, one pair for each array of index words."""
        return FfcvBatches(self, batches, pin)

    def fill(self, words: NDArray[np.uint64], images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        """Runs FFCV's pipeline for some samples, into parts of a batch."""
        loader = self.loader
        ((stage, produced),) = loader.code[0]
        image, label = (loader.graph.leaf_nodes[name].id for name in ("image", "label"))
        results = stage(
            batch_indices=words,
            metadata=loader.reader.metadata,
            storage_state=loader.memory_manager.state,
            **{f"memory_{image}": images, f"memory_{label}": None},
            **{f"shared_memory_{image}": None, f"shared_memory_{label}": None},
        )
        labels[:] = results[produced.index(label)]  # FFCV orders its stage anew in each process

    def file_of(self, sample: int) -> str:
        """The source file that a sample was made from."""
        with contextlib.suppress(OSError), open(self.files, encoding="utf-8") as f:
            for number, line in enumerate(f):
                if number == sample:
                    return line.strip()
        return "source file unknown"

    def close(self) -> None:
        """Waits for the parts that threads work on (milliseconds) and ends the threads."""
        self.pool.shutdown(wait=True, cancel_futures=True)


def _open(path: Path, decoder: ViewDecoder) -> Loader:
    """FFCV's Loader over ``path`` with the operations above; they are compiled already, so FFCV's compiler is off."""
    threads = torch.get_num_threads()
    Compiler.set_enabled(False)
    try:
        with mock.patch.object(loader_module, "OSCacheManager", MappedFile):
            loader = Loader(
                os.fspath(path),
                batch_size=1,
                num_workers=1,
                os_cache=True,
                order=OrderOption.SEQUENTIAL,
                seed=0,
                pipelines={
                    "image": PipelineSpec("image", decoder=decoder),
                    "label": PipelineSpec("label", decoder=LabelDecoder()),
                },
            )
    finally:
        Compiler.set_enabled(True)
        torch.set_num_threads(threads)
    loader.indices = loader.first_traversal_order = None  # 16 bytes a sample; the order comes from `sampling`
    return loader


class _Pending(NamedTuple):
    """A batch that threads fill."""

    images: torch.Tensor
    labels: torch.Tensor
    parts: list[Future[None]]


class FfcvBatches(Iterator[tuple[torch.Tensor, torch.Tensor]]):
    """One pass over some batches: an iterator and a context manager."""

    def __init__(self, reader: FfcvReader, batches: Sequence[NDArray[np.uint64]], pin: bool) -> None:
        self.reader = reader
        self.todo = iter(batches)
        self.pin = pin
        self.pending: collections.deque[_Pending] = collections.deque()

    def _start_next(self) -> bool:
        words = next(self.todo, None)
        if words is None:
            return False
        size = self.reader.view.size
        # Fresh memory for each batch: nothing overwrites what a consumer holds. Pinned memory comes from torch's
        # caching host allocator, which reuses a block only when the copies from it have finished.
        images = torch.empty(len(words), size, size, 3, dtype=torch.uint8, pin_memory=self.pin)
        labels = torch.empty(len(words), dtype=torch.int64, pin_memory=self.pin)
        into, into_labels = images.numpy(), labels.numpy()
        step = max(1, -(-len(words) // (PARTS * self.reader.workers)))
        parts = [slice(i, i + step) for i in range(0, len(words), step)]
        futures = [self.reader.pool.submit(self.reader.fill, words[p], into[p], into_labels[p]) for p in parts]
        self.pending.append(_Pending(images, labels, futures))
        return True

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        while len(self.pending) <= AHEAD and self._start_next():
            pass
        if not self.pending:
            raise StopIteration
        images, labels, futures = self.pending.popleft()
        try:
            for future in futures:
                future.result()
        except DecodeError as e:
            self.close()
            raise UserError(
                f"{self.reader.path}: sample {e.sample} ({self.reader.file_of(e.sample)}) is damaged; "
                "move the file away and run `adarem prepare` again"
            ) from None
        except BaseException:
            self.close()
            raise
        return images, labels

    def close(self) -> None:
        """Drops the batches that are not taken; the parts that threads work on right now finish by themselves."""
        for batch in self.pending:
            for part in batch.parts:
                part.cancel()
        self.pending.clear()
        self.todo = iter(())

    def __enter__(self) -> "FfcvBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
