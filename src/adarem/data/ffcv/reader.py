"""Reads a .beton through FFCV's Loader, with our decoder and our way through an epoch.

FFCV gives the file format, the pipeline of operations and the C library that decodes and resizes. Ours are the
operations (counter-based random numbers, decode errors reported), the memory manager (FFCV's builds Python dictionaries
of every sample: 615 MB and 4 s a rank for ImageNet) and the iteration: threads fill small parts of fresh batches, so an
exception reaches the consumer, a batch belongs to whoever takes it, and leaving early leaves nothing behind.
"""

import collections
import contextlib
import ctypes
import os
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from adarem.data import fingerprint
from adarem.data.ffcv import kernels, region
from adarem.data.ffcv.library import (
    AllocationQuery,
    Compiler,
    Loader,
    MemoryManager,
    Operation,
    OrderOption,
    PipelineSpec,
    State,
    libffcv,
    loader_module,
)
from adarem.data.images.sampling import INDEX_MASK, RandomCrop, View
from adarem.run.config import DataConfig
from adarem.run.errors import UserError

AHEAD = 3  # batches in the making while the consumer holds one
PARTS = 4  # parts a batch and worker: small enough to even out slow images, large enough to hide Python
_MASK = np.uint64(INDEX_MASK)
_IMDECODE = ctypes.cast(libffcv.ctypes_imdecode, ctypes.c_void_p).value
_RESIZE = ctypes.cast(libffcv.ctypes_resize, ctypes.c_void_p).value


class DecodeError(Exception):
    """Carries the index of the sample that does not decode."""

    def __init__(self, sample: int):
        super().__init__(sample)
        self.sample = sample


class ViewDecoder(Operation):
    """FFCV decoder: index words -> uint8 [b, size, size, 3] of what ``view`` shows of each sample."""

    def __init__(self, view: View, sums: np.ndarray):
        super().__init__()
        self.view, self.sums = view, sums
        self.region = region.find()[0]

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        shape, dtype = (self.view.size, self.view.size, 3), np.dtype("u1")
        return replace(previous_state, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)

    def boxes(self, words: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
        view = self.view
        if isinstance(view, RandomCrop):
            return kernels.train_boxes(
                np.uint64(view.seed), words, heights, widths, *view.area, *view.aspect, float(view.flip)
            )
        sizes = zip(heights.tolist(), widths.tolist(), strict=True)
        return np.array([view.box(0, h, w) for h, w in sizes], np.int64).reshape(-1, 5)

    def generate_code(self) -> Any:
        def decode(words: np.ndarray, out: np.ndarray, metadata: np.ndarray, storage: tuple) -> np.ndarray:
            samples = words & _MASK
            mapped, sizes = storage
            fields = metadata[samples]
            heights, widths = fields["height"].copy(), fields["width"].copy()
            failed = kernels.decode_boxes(
                _IMDECODE,
                self.region,
                _RESIZE,
                mapped,
                fields["data_ptr"].copy(),
                sizes[samples],
                self.sums[samples],
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


class LabelDecoder(Operation):
    """FFCV decoder: index words -> int64 [b] labels."""

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        return replace(previous_state, shape=(), dtype=np.dtype("i8")), None

    def generate_code(self) -> Any:
        def decode(words: np.ndarray, _: None, metadata: np.ndarray, __: tuple) -> np.ndarray:
            return metadata[words & _MASK]

        return decode


class MappedFile(MemoryManager):
    """FFCV memory manager: the file mapped into memory (the operating system's cache), and each sample's length."""

    def __init__(self, reader: Any):
        self.reader = reader
        table = reader.alloc_table
        self.sizes = np.empty(len(table), np.uint32)
        self.sizes[table["sample_id"]] = table["size"]
        self.mapped = np.asarray(np.memmap(reader.file_name, np.uint8, mode="r"))
        reader.alloc_table = None  # 24 bytes a sample that nobody needs any more

    @property
    def state(self) -> tuple[np.ndarray, np.ndarray]:
        return self.mapped, self.sizes

    def compile_reader(self) -> None:
        return None  # the decoder reads the mapping itself

    def schedule_epoch(self, batches: Any) -> Any:
        raise NotImplementedError("FfcvReader.read schedules")

    @property
    def state_type(self) -> Any:
        raise NotImplementedError("nothing is compiled against the state")


class FfcvReader:
    """One split of a prepared data set, seen through ``view``."""

    def __init__(self, data: DataConfig, split: str, view: View):
        index = fingerprint.open_beton(data, split)  # before anything starts: FFCV crashes on damaged files
        self.path = fingerprint.beton_path(data, split)
        self.files = fingerprint.files_path(data, split)
        self.view, self.workers = view, data.workers
        self.loader = _open(self.path, ViewDecoder(view, index.sums))
        self.num_images = int(self.loader.reader.num_samples)
        self.pool = ThreadPoolExecutor(self.workers, thread_name_prefix=f"ffcv-{split}")
        self._finalizer = weakref.finalize(self, self.pool.shutdown, wait=False, cancel_futures=True)

    def read(self, batches: Sequence[np.ndarray], pin: bool) -> "Batches":
        """Iterates over (uint8 [b, size, size, 3], int64 [b]) CPU tensors, one pair for each array of index words."""
        return Batches(self, batches, pin)

    def fill(self, words: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
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
        with contextlib.suppress(OSError), open(self.files) as f:
            for number, line in enumerate(f):
                if number == sample:
                    return line.strip()
        return "source file unknown"

    def close(self) -> None:
        """Waits for the parts in the making (milliseconds) and ends the threads."""
        self.pool.shutdown(wait=True, cancel_futures=True)


def _open(path: Path, decoder: ViewDecoder) -> Loader:
    """FFCV's Loader over ``path`` with our operations. They are compiled already, so its compiler is switched off."""
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
    loader.indices = loader.first_traversal_order = None  # 16 bytes a sample; the order is ours
    return loader


class Batches(Iterator[tuple[torch.Tensor, torch.Tensor]]):
    """One way through some batches: an iterator and a context manager."""

    def __init__(self, reader: FfcvReader, batches: Sequence[np.ndarray], pin: bool):
        self.reader = reader
        self.todo = iter(batches)
        self.pin = pin
        self.pending: collections.deque[tuple[torch.Tensor, torch.Tensor, list[Future]]] = collections.deque()

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
        self.pending.append((images, labels, futures))
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
        """Drops what is in the making; the parts that threads work on right now finish by themselves."""
        for _, _, futures in self.pending:
            for future in futures:
                future.cancel()
        self.pending.clear()
        self.todo = iter(())

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
