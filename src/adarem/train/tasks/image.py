"""What a run learns: the batches, their loss, the exact evaluation. The trainer knows nothing of images or words."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adarem.data.fingerprint import read_fingerprint
from adarem.data.loaders import open_eval, open_train
from adarem.run.config import RunConfig
from adarem.run.errors import UserError
from adarem.train.distributed.context import World
from adarem.train.models.library import build_model


@dataclass(frozen=True)
class Evaluation:
    """Of the whole validation set."""

    loss: float  # mean
    figures: Mapping[str, float]  # what it is judged by: top1 and top5 in percent, or perplexity
    count: int  # of images or tokens
    correct: Mapping[str, np.ndarray] | None = None  # top1, top5: bool [images], in dataset order


class Task(Protocol):
    """What the trainer asks of a task: ImageTask here, LanguageTask in adarem.train.tasks.language."""

    UNIT: str  # what is counted: images or tokens
    TOTALS: tuple[str, ...]  # columns of the running totals; the sum of losses first, the count last
    HEADLINE: str  # the figure of an evaluation by which the best epoch is found
    LOWER_IS_BETTER: bool
    clip: float  # largest norm of the whole gradient; 0 clips nothing
    average_after: int  # see LstmConfig; 0 never averages
    steps_per_epoch: int
    fingerprint: dict[str, dict[str, Any]]  # split to that of its data

    def build_model(self) -> nn.Module: ...
    def example_input(self) -> Tensor: ...
    def example_loss(self, network: nn.Module) -> Tensor: ...
    def batches(self, epoch: int, start_step: int) -> AbstractContextManager[Iterator[Any]]: ...
    def lr_factor(self, batch: Any) -> float: ...
    def count(self, batch: Any) -> int: ...
    def loss(self, network: nn.Module, batch: Any) -> tuple[Tensor, Tensor]: ...
    def figures(self, totals: Tensor) -> dict[str, float]: ...
    def evaluate(self, model: nn.Module) -> Evaluation: ...
    def final(self, model: nn.Module, evaluation: Evaluation, best: float) -> dict[str, float]: ...
    def describe_evaluation(self) -> dict[str, Any]: ...
    def sentence(self, result: dict[str, Any]) -> str: ...
    def state(self) -> Any: ...
    def restore(self, state: Any) -> None: ...


def autocast_settings(config: RunConfig, world: World) -> dict[str, Any]:
    """Arguments of torch.autocast for the config's precision."""
    precision = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.scale.precision]
    return {"device_type": world.device.type, "dtype": precision, "enabled": precision is not None}


class ImageTask:
    """Classification of images: cross-entropy, top-1 and top-5."""

    UNIT = "images"
    # loss * images, correct at top-1, correct at top-5, images
    TOTALS = ("loss", "top1", "top5", "images")
    HEADLINE, LOWER_IS_BETTER = "top1", False
    clip, average_after = 0.0, 0

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
        self._autocast = autocast_settings(config, world)

    def build_model(self) -> nn.Module:
        """A freshly initialised network on the CPU."""
        return build_model(self.config.model.name, self.config.data.num_classes, self.config.seed)

    def example_input(self) -> Tensor:
        """A batch of noise in the shape of training images, the same on every rank. float32 [8, 3, crop, crop]."""
        generator = torch.Generator().manual_seed(0)
        side = self.config.data.train_crop
        return torch.randn(8, 3, side, side, generator=generator)

    def example_loss(self, network: nn.Module) -> Tensor:
        """A loss of ``example_input`` that every parameter bears on."""
        return network(self.example_input().to(self.world.device)).sum()

    @contextmanager
    def batches(self, epoch: int, start_step: int) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        """The rank's training batches of an epoch (0 is the first) from a step on; leaving early leaks nothing."""
        iterator = self.train_loader.epoch(epoch, start_step)
        try:
            yield iter(iterator)
        finally:
            iterator.close()

    def lr_factor(self, batch: tuple[Tensor, Tensor]) -> float:
        """On the scheduled learning rate: batches are all alike."""
        return 1.0

    def count(self, batch: tuple[Tensor, Tensor]) -> int:
        """Images of a batch over all ranks."""
        return self.config.scale.global_batch_size

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
            figures={"top1": 100 * top1, "top5": 100 * top5},
            count=n,
            correct={"top1": table[:, 1].bool().numpy(), "top5": table[:, 2].bool().numpy()},
        )

    def final(self, model: nn.Module, evaluation: Evaluation, best: float) -> dict[str, float]:
        """The result's figures: those of the last evaluation."""
        return {**evaluation.figures, "best_top1": best}

    def describe_evaluation(self) -> dict[str, Any]:
        """What the network saw of the validation images, for the result."""
        data = self.config.data
        return {
            "resize": data.eval_resize,
            "crop": data.eval_crop,
            "images": self.eval_loader.num_images,
            "stored_max_side": data.write.max_side if data.backend == "ffcv" else None,
            "backend": data.backend,
        }

    def sentence(self, result: dict[str, Any]) -> str:
        """The outcome in words."""
        images = self.eval_loader.num_images
        return f"top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} % on {images} images"

    def state(self) -> None:
        """Nothing is carried from batch to batch."""

    def restore(self, state: None) -> None: ...


def _correct(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the label is the best, or among the best five (all classes where there are fewer). bool [b] each."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    return best[:, 0], best.any(dim=1)
