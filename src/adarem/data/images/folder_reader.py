"""The plain backend: the source's JPEGs through PIL and torchvision, in the same order and with the same crops.

Slow, and without FFCV: the control that separates FFCV's effect on accuracy, and the way for machines without FFCV.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as F

from adarem.data import fingerprint
from adarem.data.images.open_source import folder_name, open_source
from adarem.data.images.sampling import INDEX_MASK, CentreCrop, View, stored_size
from adarem.data.images.source import File, Stored, decode_rgb
from adarem.run.config import DataConfig
from adarem.run.errors import UserError

Batch = tuple[torch.Tensor, torch.Tensor]  # uint8 [b, size, size, 3], int64 [b]


@dataclass(frozen=True)
class _Files:
    """The files of a folder by sample. Kept as one array, which the worker processes share; a list they would copy."""

    folder: str
    names: NDArray[np.bytes_]

    def __call__(self, sample: int) -> Stored:
        return File(self.folder, self.names[sample].decode())


class _Samples(Dataset[Batch | str]):
    """Takes an array of index words, returns a complete batch; or the problem, where a file does not decode."""

    def __init__(self, image_of: Callable[[int], Stored], labels: NDArray[np.int64], view: View, max_side: int) -> None:
        self.image_of, self.labels, self.view, self.max_side = image_of, labels, view, max_side

    def __getitem__(self, words: NDArray[np.uint64]) -> Batch | str:
        size = self.view.size
        images = torch.empty(len(words), size, size, 3, dtype=torch.uint8)
        samples = (words & np.uint64(INDEX_MASK)).astype(np.int64)
        for k, (word, sample) in enumerate(zip(words.tolist(), samples.tolist(), strict=True)):
            image = self.image_of(sample)
            try:
                pixels = decode_rgb(image.read())
            except Exception as e:
                path = os.path.join(*image) if isinstance(image, File) else "memory"
                return f"{path}: sample {sample} does not decode ({type(e).__name__}: {e}); replace or remove the file"
            images[k] = torch.from_numpy(show(pixels, word, self.view, self.max_side))
        return images, torch.from_numpy(self.labels[samples])


def show(pixels: NDArray[np.uint8], word: int, view: View, max_side: int) -> NDArray[np.uint8]:
    """uint8 [size, size, 3]: what ``view`` shows of an image, uint8 [h, w, 3].

    Evaluation is torchvision's Resize and CenterCrop as they are. A training box is drawn at the size at which a .beton
    would hold the image and scaled to the image, so that both backends show the same part of it. Interpolation is
    torchvision's (PIL, bilinear with antialiasing).
    """
    if isinstance(view, CentreCrop):
        resized = F.resize(Image.fromarray(pixels), [view.resize], F.InterpolationMode.BILINEAR)
        return np.array(F.center_crop(resized, [view.size, view.size]))
    height, width = pixels.shape[:2]
    stored = stored_size(height, width, max_side)
    box = view.box(word, stored.height, stored.width)
    y, x = height / stored.height, width / stored.width
    image = F.resized_crop(
        Image.fromarray(pixels),
        round(box.top * y),
        round(box.left * x),
        max(1, round(box.height * y)),
        max(1, round(box.width * x)),
        [view.size, view.size],
        F.InterpolationMode.BILINEAR,
    )
    return np.array(F.hflip(image) if box.flip else image)


class FolderReader:
    """One split of a prepared source, seen through ``view``."""

    def __init__(self, data: DataConfig, split: str, view: View) -> None:
        found = fingerprint.read_fingerprint(data, split)
        path = fingerprint.files_path(data, split)
        try:
            files = np.array(path.read_bytes().splitlines())
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; run `{fingerprint.prepare_command(data)}`") from None
        if len(files) != found["num_images"]:
            raise UserError(
                f"{path}: lists {len(files)} files, its fingerprint {found['num_images']}; run `adarem prepare` again"
            )
        if found["num_classes"] != data.num_classes:
            raise UserError(
                f"{path}: {found['num_classes']} classes, data.num_classes is {data.num_classes}; set it to that"
            )
        image_of: Callable[[int], Stored]
        if data.source == "folder":
            image_of, labels = _listed(data, split, files, found["classes"])
        else:
            source = open_source(data)[split]
            if source.listing_hash != found["listing_hash"]:
                raise UserError(
                    f"data.root={data.root}: holds other images than {path} lists; run "
                    f"`{fingerprint.prepare_command(data)}` again"
                )
            image_of, labels = source.images.__getitem__, source.labels
        self.samples = _Samples(image_of, labels, view, data.write.max_side)
        self.num_images, self.labels = len(files), labels
        self.workers = data.workers

    def read(self, batches: Sequence[NDArray[np.uint64]], pin: bool) -> "FolderBatches":
        """Iterates over (uint8 [b, size, size, 3], int64 [b]) CPU tensors, one pair for each array of index words."""
        return FolderBatches(self, batches, pin)

    def close(self) -> None:
        """Does nothing: no file or process stays open between two passes over the data."""


def _listed(
    data: DataConfig, split: str, files: NDArray[np.bytes_], classes: Sequence[str]
) -> tuple[_Files, NDArray[np.int64]]:
    """The images and labels of a list of files. Raises UserError where the first of them is not there."""
    names = {name: label for label, name in enumerate(classes)}
    files = np.array([b"/".join(file.split(b"/")[-2:]) for file in files.tolist()])  # <class>/<file>
    labels = np.array([names[file.split(b"/")[0].decode()] for file in files.tolist()], np.int64)
    folder = Path(data.root) / folder_name(data, split)
    first = folder / files[0].decode()
    if not first.exists():
        raise UserError(f"{first}: no such file; correct data.root")
    return _Files(str(folder), files), labels


def _use_a_short_temporary_folder(_worker: int) -> None:
    """A worker hands over its images through a socket with a name, of which Linux takes 107 bytes: it would hang."""
    for folder in (os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp", "/dev/shm"):
        short = len(os.fsencode(folder)) + len("/pymp-12345678/listener-12345678") <= 107
        if folder and short and os.access(folder, os.W_OK | os.X_OK) and os.path.isdir(folder):
            tempfile.tempdir = folder
            return


class FolderBatches(Iterator[Batch]):
    """One pass over some batches: an iterator and a context manager."""

    def __init__(self, reader: FolderReader, batches: Sequence[NDArray[np.uint64]], pin: bool) -> None:
        loader: DataLoader[Batch | str] = DataLoader(
            reader.samples,
            sampler=batches,
            batch_size=None,
            num_workers=reader.workers if len(batches) else 0,
            pin_memory=pin,
            worker_init_fn=_use_a_short_temporary_folder,
        )
        self.inner: Iterator[Batch | str] | None = iter(loader)

    def __next__(self) -> Batch:
        if self.inner is None:
            raise StopIteration
        try:
            batch = next(self.inner)
        except BaseException:
            self.close()
            raise
        if isinstance(batch, str):
            self.close()
            raise UserError(batch)
        images, labels = batch
        return images, labels

    def close(self) -> None:
        """Ends the worker processes."""
        self.inner = None  # the DataLoader's iterator ends them when it goes

    def __enter__(self) -> "FolderBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
