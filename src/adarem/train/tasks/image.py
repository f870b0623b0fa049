"""Classification of images: cross-entropy, top-1 and top-5, evaluated on each image exactly once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adarem.data.fingerprint import read_fingerprint, splits_read
from adarem.data.images.holdout import record as holdout_record
from adarem.data.loaders import open_eval, open_train
from adarem.data.prepared import check_listing
from adarem.run.config import DataConfig, RunConfig
from adarem.run.errors import UserError
from adarem.run.records import JsonRecord, text
from adarem.train.distributed.context import RankContext
from adarem.train.models.build import build_network
from adarem.train.tasks.base import Batch, Evaluation, FinalResult, Part, TaskInfo, autocast


class ImageInputs(NamedTuple):
    images: Tensor  # uint8 [this rank's images, 3, height, width]
    labels: Tensor  # int64 [this rank's images]


class ImageTask:
    """Opens the prepared data of a config. Raises UserError where they are missing, damaged or too few."""

    def __init__(self, config: RunConfig, context: RankContext) -> None:
        assert isinstance(config.data, DataConfig)
        self.config, self.context, self._data = config, context, config.data
        data, self._global_batch_size = config.data, config.scale.global_batch_size
        found = {split: read_fingerprint(data, split) for split in splits_read(data)}
        check_listing(data, found)
        fingerprint: dict[str, JsonRecord] = {**found}
        self.train_loader = open_train(
            data,
            global_batch_size=self._global_batch_size,
            seed=config.seed,
            rank=context.rank,
            world_size=context.world_size,
            device=context.device,
        )
        self.eval_loader = open_eval(
            data,
            split=data.evaluated_on,
            batch_size=config.scale.images_per_pass(context.world_size),
            rank=context.rank,
            world_size=context.world_size,
            device=context.device,
        )
        if self.train_loader.steps_per_epoch < 1:
            raise UserError(
                f"scale.global_batch_size={self._global_batch_size}: larger than the {self.train_loader.num_images} "
                f"training images of {data.root}; lower it"
            )
        if (held := self.train_loader.held_out) is not None:
            fingerprint["holdout"] = holdout_record(data, held, text(fingerprint["train"], "content_hash"))
        self.info = TaskInfo(
            unit="images",
            totals=("loss", "top1", "top5", "images"),  # loss * images, correct at top-1, correct at top-5, images
            primary_metric="top1",
            clip_norm=0.0,
            evaluated_on=data.evaluated_on,
            steps_per_epoch=self.train_loader.steps_per_epoch,
            fingerprint=fingerprint,
        )
        scale = 255.0
        self._mean = torch.tensor(data.mean, device=context.device).view(1, 3, 1, 1) * scale
        # Of `_totals`, by images and places: the number of images in its column, and places to top-1 and top-5.
        self._shape, self._images, self._columns = (0, 0), torch.empty(0), torch.empty(0)
        self._inv_std = 1.0 / (torch.tensor(data.std, device=context.device).view(1, 3, 1, 1) * scale)

    def build_model(self) -> nn.Module:
        """A freshly initialised network on the CPU."""
        return build_network(self.config)

    def example_input(self) -> Tensor:
        """A batch of noise in the shape of training images, the same on every rank. float32 [8, 3, crop, crop]."""
        generator = torch.Generator().manual_seed(0)
        side = self._data.train_crop
        return torch.randn(8, 3, side, side, generator=generator)

    @contextmanager
    def batches(self, epoch: int, start_step: int) -> Iterator[Iterator[Batch]]:
        """The rank's training batches of an epoch (0 is the first) from a step on; leaving early leaks nothing."""
        loader = self.train_loader.epoch(epoch, start_step)
        try:
            yield (Batch(ImageInputs(*batch), self._global_batch_size) for batch in loader)
        finally:
            loader.close()

    def parts(self, batch: Batch, count: int) -> Iterator[Part]:
        """Ranks take every world-size-th image, and so do parts: the k-th is that of rank k · world size + rank."""
        assert isinstance(batch.inputs, ImageInputs)
        images, labels = batch.inputs
        for k in range(count):
            inputs = ImageInputs(_same_layout(images[k::count], images), labels[k::count])
            yield Part(Batch(inputs, batch.count // count), k * self.context.world_size + self.context.rank)

    def _normalise(self, images: Tensor) -> Tensor:
        return images.float().sub_(self._mean).mul_(self._inv_std)

    def _logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """float32, or of the autocast's type: [b, classes]."""
        logits: Tensor = network(self._normalise(images))
        return logits

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean loss to differentiate and this batch's totals (float64 [4] on the device, see ``info.totals``)."""
        assert isinstance(batch.inputs, ImageInputs)
        images, labels = batch.inputs
        with autocast(self.config, self.context):
            logits = self._logits(network, images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.config.train.label_smoothing)
        return loss, self._totals(loss.detach(), logits.detach(), labels)

    def _totals(self, loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """In as few operations as there can be: each costs the host some microseconds at every pass."""
        places = _places(logits, labels).sum(dim=0, dtype=torch.float64)
        if (len(labels), len(places)) != self._shape:
            self._shape = len(labels), len(places)
            self._images = torch.tensor([0.0, 0.0, 0.0, len(labels)], dtype=torch.float64, device=labels.device)
            self._columns = torch.zeros(4, len(places), dtype=torch.float64, device=labels.device)
            self._columns[1, 0] = 1.0
            self._columns[2] = 1.0
        totals = torch.addmv(self._images, self._columns, places)
        totals[0].add_(loss, alpha=len(labels))
        return totals

    def metrics(self, totals: Tensor) -> dict[str, float]:
        """Totals over all ranks to means: loss, top1 and top5 in percent, images."""
        loss, top1, top5, images = totals.tolist()
        return {"loss": loss / images, "top1": 100 * top1 / images, "top5": 100 * top5 / images, "images": int(images)}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        """Evaluates the complete validation set, or all that is held out of the training images.

        Each image exactly once at any world size, which is asserted.

        Sums run in data set order, so that the metrics do not depend on world size and batch size.
        """
        model.eval()
        n = self.eval_loader.num_images
        table = torch.zeros(n, 4, dtype=torch.float64, device=self.context.device)  # loss, top1, top5, times seen
        for indices, images, labels in self.eval_loader:
            self.context.heartbeat.repeat()
            with autocast(self.config, self.context):
                logits = self._logits(model, images)
            loss = F.cross_entropy(logits.float(), labels, reduction="none")
            top1, top5 = _correct(logits, labels)
            rows = torch.stack([loss.double(), top1.double(), top5.double(), torch.ones_like(loss).double()], dim=1)
            table.index_add_(0, indices.to(self.context.device), rows)
        model.train()
        table = self.context.sum(table).cpu()
        assert bool((table[:, 3] == 1).all()), "an image was evaluated twice or not at all"
        mean_loss, share1, share5 = (table[:, :3].sum(dim=0) / n).tolist()
        return Evaluation(
            loss=mean_loss,
            metrics={"top1": 100 * share1, "top5": 100 * share5},
            count=n,
            correct={"top1": table[:, 1].bool().numpy(), "top5": table[:, 2].bool().numpy()},
        )

    def final(self, model: nn.Module, evaluation: Evaluation, best: float) -> FinalResult:
        """The metrics of the last evaluation, and what the network saw of the images."""
        data, top1, top5 = self._data, evaluation.metrics["top1"], evaluation.metrics["top5"]
        # Under names of their own, so that no table takes them for figures of the validation images.
        held = "" if data.holdout is None else "holdout_"
        what = "images" if data.holdout is None else "held-out training images"
        return FinalResult(
            metrics={f"{held}top1": top1, f"{held}top5": top5, f"best_{held}top1": best},
            evaluation={
                **({"split": data.evaluated_on} if held else {}),
                "resize": data.eval_resize,
                "crop": data.eval_crop,
                "images": self.eval_loader.num_images,
                "stored_max_side": data.write.max_side if data.backend == "ffcv" else None,
                "backend": data.backend,
            },
            summary=f"top-1 {top1:.2f} %, top-5 {top5:.2f} % on {self.eval_loader.num_images} {what}",
        )

    def state_dict(self) -> dict[str, object]:
        """Empty: nothing is carried from batch to batch."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None: ...


def _same_layout(images: Tensor, like: Tensor) -> Tensor:
    """A strided part of a batch in one piece of memory, channels_last where the batch is."""
    last = like.is_contiguous(memory_format=torch.channels_last)
    return images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


class _Correct(NamedTuple):
    top1: Tensor  # bool [b]
    top5: Tensor  # bool [b]


def _correct(logits: Tensor, labels: Tensor) -> _Correct:
    """Whether the label is the best, or among the best five (all classes where there are fewer)."""
    places = _places(logits, labels)
    return _Correct(places[:, 0], places.any(dim=1))


def _places(logits: Tensor, labels: Tensor) -> Tensor:
    """Which of the best five classes is the label, at most one: bool [b, 5]."""
    return logits.topk(min(5, logits.shape[1]), dim=1).indices == labels.unsqueeze(1)
