"""What a run learns: the batches, their loss, and the exact evaluation. The trainer knows nothing of images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adarem.config import RunConfig
from adarem.data.fingerprint import read_fingerprint
from adarem.data.loaders import open_eval, open_train
from adarem.distributed import World
from adarem.errors import UserError


@dataclass(frozen=True)
class Evaluation:
    loss: float
    top1: float  # percent
    top5: float
    images: int
    correct: dict[str, np.ndarray]  # top1, top5: bool [images], in dataset order


class ImageTask:
    """Classification of images: cross-entropy, top-1 and top-5."""

    # Columns of the running totals: loss * images, correct at top-1, correct at top-5, images
    TOTALS = ("loss", "top1", "top5", "images")

    def __init__(self, config: RunConfig, world: World) -> None:
        self.config, self.world = config, world
        data, batch = config.data, config.scale.global_batch_size
        self.fingerprint = {split: read_fingerprint(data, split) for split in ("train", "val")}
        self.train_loader = open_train(
            data,
            global_batch_size=batch,
            seed=config.seed,
            rank=world.rank,
            world_size=world.world_size,
            device=world.device,
        )
        self.eval_loader = open_eval(
            data,
            split="val",
            batch_size=batch // world.world_size,
            rank=world.rank,
            world_size=world.world_size,
            device=world.device,
        )
        self.steps_per_epoch = self.train_loader.steps_per_epoch
        if self.steps_per_epoch < 1:
            raise UserError(
                f"scale.global_batch_size={batch}: larger than the {self.train_loader.num_images} training images of "
                f"{data.root}; lower it"
            )
        scale = 255.0
        self._mean = torch.tensor(data.mean, device=world.device).view(1, 3, 1, 1) * scale
        self._inv_std = 1.0 / (torch.tensor(data.std, device=world.device).view(1, 3, 1, 1) * scale)
        precision = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.scale.precision]
        self._autocast: dict[str, Any] = {
            "device_type": world.device.type,
            "dtype": precision,
            "enabled": precision is not None,
        }

    def example_input(self) -> Tensor:
        """A batch of noise in the shape of training images, the same on every rank. float32 [8, 3, crop, crop]."""
        generator = torch.Generator().manual_seed(0)
        side = self.config.data.train_crop
        return torch.randn(8, 3, side, side, generator=generator)

    @contextmanager
    def batches(self, epoch: int, start_step: int) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        """The rank's training batches of an epoch (0 is the first) from a step on; leaving early leaks nothing."""
        iterator = self.train_loader.epoch(epoch, start_step)
        try:
            yield iter(iterator)
        finally:
            iterator.close()

    def _normalise(self, images: Tensor) -> Tensor:
        return images.float().sub_(self._mean).mul_(self._inv_std)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The mean loss to differentiate and this batch's totals (float64 [4] on the device, see TOTALS)."""
        images, labels = batch
        with torch.autocast(**self._autocast):
            logits = model(self._normalise(images))
            loss = F.cross_entropy(logits, labels, label_smoothing=self.config.train.label_smoothing)
        with torch.no_grad():
            top1, top5 = _correct(logits, labels)
            count = torch.full((), labels.numel(), dtype=torch.float64, device=labels.device)
            totals = torch.stack([loss.double() * count, top1.sum().double(), top5.sum().double(), count])
        return loss, totals

    @staticmethod
    def figures(totals: Tensor) -> dict[str, float]:
        """Totals over all ranks to means: loss, top1 and top5 in percent, images."""
        loss, top1, top5, images = totals.tolist()
        return {"loss": loss / images, "top1": 100 * top1 / images, "top5": 100 * top5 / images, "images": int(images)}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        """Evaluates the whole validation set, each image exactly once at any world size, which is asserted.

        Sums run in dataset order, so that world size and batch size do not show in the figures.
        """
        model.eval()
        n = self.eval_loader.num_images
        table = torch.zeros(n, 4, dtype=torch.float64, device=self.world.device)  # loss, top1, top5, times seen
        for indices, images, labels in self.eval_loader:
            self.world.pulse.on()
            with torch.autocast(**self._autocast):
                logits = model(self._normalise(images))
            loss = F.cross_entropy(logits.float(), labels, reduction="none")
            top1, top5 = _correct(logits, labels)
            rows = torch.stack([loss.double(), top1.double(), top5.double(), torch.ones_like(loss).double()], dim=1)
            table.index_add_(0, indices.to(self.world.device), rows)
        model.train()
        table = self.world.sum(table).cpu()
        assert bool((table[:, 3] == 1).all()), "an image was evaluated twice or not at all"
        loss, top1, top5 = (table[:, :3].sum(dim=0) / n).tolist()
        return Evaluation(
            loss=loss,
            top1=100 * top1,
            top5=100 * top5,
            images=n,
            correct={"top1": table[:, 1].bool().numpy(), "top5": table[:, 2].bool().numpy()},
        )


def _correct(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the label is the best, or among the best five (all classes where there are fewer). bool [b] each."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    return best[:, 0], best.any(dim=1)
