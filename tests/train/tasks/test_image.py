"""The image task alone. Its evaluation at several ranks and its part in a run: tests/train/test_train.py."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.train.distributed.context import RankContext
from adarem.train.tasks.image import ImageTask

ALONE = RankContext(0, 1, 0, torch.device("cpu"), ("here",))


class Constant(nn.Module):
    """The same logits for every image."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


def test_loss_totals_and_metrics_of_a_batch(tiny_run: Callable[..., Path]) -> None:
    task = ImageTask(RunDir(tiny_run()).config(), ALONE)
    assert (task.info.unit, task.info.steps_per_epoch, task.info.primary_metric) == ("images", 4, "top1")
    network = Constant([float(9 - i) for i in range(10)])  # class 0 is the best, classes 0 to 4 the best five
    with task.batches(0, 3) as batches:
        (batch,) = list(batches)
    assert batch.count == len(batch.inputs.labels) == 288 and batch.lr_factor == 1.0
    loss, totals = task.loss(network, batch)
    labels = batch.inputs.labels
    expected = nn.functional.cross_entropy(network.logits.expand(288, -1), labels)
    assert torch.equal(loss, expected)
    share1, share5 = (labels == 0).double().mean().item(), (labels < 5).double().mean().item()
    metrics = {"loss": expected.item(), "top1": 100 * share1, "top5": 100 * share5, "images": 288}
    assert task.metrics(totals) == pytest.approx(metrics)


def test_a_batch_larger_than_the_data_is_refused(tiny_run: Callable[..., Path]) -> None:
    config = RunDir(tiny_run("scale.global_batch_size=1440")).config()
    with pytest.raises(UserError, match=r"batch_size=1440: larger than the 1437 training images of .*; lower it"):
        ImageTask(config, ALONE)
