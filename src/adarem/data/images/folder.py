"""The plain backend: the source's JPEGs through PIL and torchvision, in the same order and with the same crops.

Slow, and without FFCV: the control that tells FFCV's effect on accuracy apart, and the way for machines without it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as F

from adarem.data import fingerprint
from adarem.data.images.sampling import INDEX_MASK, CentreCrop, View, stored_size
from adarem.data.images.source import decode_rgb
from adarem.run.config import DataConfig
from adarem.run.errors import UserError


class _Samples(torch.utils.data.Dataset):
    """Takes an array of index words, returns a whole batch; what does not decode comes back as text."""

    def __init__(self, root: Path, files: np.ndarray, labels: np.ndarray, view: View, max_side: int):
        self.root, self.files, self.labels, self.view, self.max_side = root, files, labels, view, max_side

    def __getitem__(self, words: np.ndarray) -> tuple[torch.Tensor, torch.Tensor] | str:
        size = self.view.size
        images = torch.empty(len(words), size, size, 3, dtype=torch.uint8)
        samples = (words & np.uint64(INDEX_MASK)).astype(np.int64)
        for k, (word, sample) in enumerate(zip(words.tolist(), samples.tolist(), strict=True)):
            path = self.root / self.files[sample].decode()
            try:
                pixels = decode_rgb(path.read_bytes())
            except Exception as e:
                return f"{path}: sample {sample} does not decode ({type(e).__name__}: {e}); replace or remove the file"
            images[k] = torch.from_numpy(show(pixels, word, self.view, self.max_side))
        return images, torch.from_numpy(self.labels[samples])


def show(pixels: np.ndarray, word: int, view: View, max_side: int) -> np.ndarray:
    """uint8 [size, size, 3]: what ``view`` shows of an image, uint8 [h, w, 3].

    Evaluation is torchvision's Resize and CenterCrop as they are. A training box is drawn at the size at which a .beton
    would hold the image and scaled to the image, so that both backends show the same part of it. Interpolation is
    torchvision's (PIL, bilinear with antialiasing).
    """
    if isinstance(view, CentreCrop):
        resized = F.resize(Image.fromarray(pixels), [view.resize], F.InterpolationMode.BILINEAR)
        return np.array(F.center_crop(resized, [view.size, view.size]))
    height, width = pixels.shape[:2]
    stored_height, stored_width = stored_size(height, width, max_side)
    top, left, h, w, flip = view.box(word, stored_height, stored_width)
    y, x = height / stored_height, width / stored_width
    box = (round(top * y), round(left * x), max(1, round(h * y)), max(1, round(w * x)))
    image = F.resized_crop(Image.fromarray(pixels), *box, [view.size, view.size], F.InterpolationMode.BILINEAR)
    return np.array(F.hflip(image) if flip else image)


class FolderReader:
    """One split of a prepared source, seen through ``view``."""

    def __init__(self, data: DataConfig, split: str, view: View):
        found = fingerprint.read_fingerprint(data, split)
        path = fingerprint.files_path(data, split)
        try:
            files = np.array(path.read_bytes().splitlines())
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; run `adarem prepare data={data.name}`") from None
        if len(files) != found["num_images"]:
            raise UserError(f"{path}: lists {len(files)} files, its fingerprint {found['num_images']}; prepare again")
        if found["num_classes"] != data.num_classes:
            raise UserError(f"{path}: {found['num_classes']} classes, data.num_classes is {data.num_classes}")
        names = {name: label for label, name in enumerate(found["classes"])}
        labels = np.array([names[file.split(b"/")[1].decode()] for file in files], np.int64)
        if not (Path(data.root) / files[0].decode()).exists():
            raise UserError(f"{Path(data.root) / files[0].decode()}: no such file; correct data.root")
        self.samples = _Samples(Path(data.root), files, labels, view, data.write.max_side)
        self.num_images = len(files)
        self.workers = data.workers

    def read(self, batches: Sequence[np.ndarray], pin: bool) -> "Batches":
        """Iterates over (uint8 [b, size, size, 3], int64 [b]) CPU tensors, one pair for each array of index words."""
        return Batches(self, batches, pin)

    def close(self) -> None:
        """Nothing stays open between two ways through the data."""


class Batches(Iterator[tuple[torch.Tensor, torch.Tensor]]):
    """One way through some batches: an iterator and a context manager."""

    def __init__(self, reader: FolderReader, batches: Sequence[np.ndarray], pin: bool):
        loader = torch.utils.data.DataLoader(
            reader.samples,
            sampler=batches,
            batch_size=None,
            num_workers=reader.workers if len(batches) else 0,
            pin_memory=pin,
        )
        self.inner: Iterator | None = iter(loader)

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
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
        return batch

    def close(self) -> None:
        """Ends the worker processes."""
        self.inner = None  # the DataLoader's iterator ends them when it goes

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
