"""The training loop, top to bottom. It knows steps, epochs and ranks, and nothing of images or files' names."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.identity import identity
from adarem.train.checkpoint import CheckpointWriter
from adarem.train.distributed.context import (
    EVALUATES,
    TRAINS,
    WAITS_FOR_DATA,
    WRITES_CHECKPOINT,
    Agreement,
    StopRequest,
    World,
    data_parallel,
)
from adarem.train.metrics import EpochClock, LossWatch, peak_memory_bytes
from adarem.train.oscillation import OscillationTracker
from adarem.train.schedule import learning_rate
from adarem.train.tasks.averaging import NonMonotoneAverage
from adarem.train.tasks.image import Evaluation, Task

_GO_ON, _STOP, _NOT_FINITE = 0, 1, 2
_Show = Callable[[dict[str, Any]], None]


class Diverged(Exception):
    """The loss is not finite any more; no checkpoint holds that state."""


class Interrupted(Exception):
    """A signal asked for an end; everything up to here is in a checkpoint."""


@dataclass
class Position:
    """How far a run has come: what a checkpoint keeps beside the model's and the optimizer's state."""

    step: int = 0  # optimizer steps done
    totals: list[list[float]] = field(default_factory=list)  # of an epoch left in the middle, one row a rank
    spent: list[float] = field(default_factory=list)  # on that epoch: EpochClock.spent()
    checkpoint_seconds: float = 0.0  # that the loop waited for checkpoints since the last record
    seconds: float = 0.0  # spent training, over all attempts
    best: float | None = None  # the task's headline figure, over the evaluations so far
    best_epoch: int = 0
    train_loss: float | None = None  # mean over the last whole epoch


class Trainer:
    """Trains one run from its last checkpoint to its last epoch. Rank 0 alone writes to the run directory."""

    def __init__(
        self, config: RunConfig, run: RunDir, world: World, task: Task, model: nn.Module, optimizer: Optimizer
    ) -> None:
        self.config, self.run, self.world, self.task = config, run, world, task
        self.model, self.optimizer = model, optimizer
        self.position = Position()
        self.total_steps = config.scale.epochs * task.steps_per_epoch
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.scale.precision == "fp16")
        self._checkpoints = CheckpointWriter(run.checkpoints)
        self._agreement = Agreement(world)
        self._watch = LossWatch(world.device)
        self._average = NonMonotoneAverage(model, task.average_after) if task.average_after else None
        self._tracker: OscillationTracker | None = None
        if config.train.oscillation and world.is_main:  # parameters are the same on every rank
            self._tracker = OscillationTracker(
                model.named_parameters(),
                seed=config.seed,
                total_steps=self.total_steps,
                watched_steps=config.train.watched_steps,
            )

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over a checkpoint's state; the number of ranks may have changed since."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.position = Position(**state["position"])
        self.task.restore(state["task"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        if self._tracker is not None:
            self._tracker.load_state_dict(state["oscillation"])

    def fit(self, stop: StopRequest, show: _Show) -> Evaluation:
        """Trains to the last epoch and returns the evaluation after it.

        Args:
            stop: asks for an orderly end; one rank's asking is enough.
            show: called on rank 0 every second or so with what a person wants to see.

        Raises:
            Diverged: the loss was not finite.
            Interrupted: ``stop`` was asked for, and a checkpoint of the last step is on disk.
        """
        network = self._wrap()
        self._began = time.perf_counter() - self.position.seconds
        evaluation = None
        while self.position.step < self.total_steps:
            epoch = self.position.step // self.task.steps_per_epoch
            clock = EpochClock(self.position.spent)
            totals = self._train_epoch(network, epoch, clock, stop, show)
            evaluation = self._finish_epoch(epoch, totals, clock, show)
        self._checkpoints.wait()
        self.position.seconds = time.perf_counter() - self._began
        # None for a run that was stopped after its last step: it is evaluated again, with the same outcome.
        return evaluation or self._evaluate()

    def final_figures(self, evaluation: Evaluation) -> dict[str, float]:
        """What result.json says beside the last evaluation's loss. Every rank must call."""
        assert self.position.best is not None
        with self._averaged():
            return self.task.final(self.model, evaluation, self.position.best)

    def _train_epoch(self, network: nn.Module, epoch: int, clock: EpochClock, stop: StopRequest, show: _Show) -> Tensor:
        """The rest of an epoch from the current step on; returns this rank's totals over the whole epoch."""
        totals = self._totals_so_far()
        first = self.position.step % self.task.steps_per_epoch
        with self.task.batches(epoch, first) as batches:
            for _ in range(first, self.task.steps_per_epoch):
                code = _NOT_FINITE if self._watch.not_finite() else _STOP if stop.signal else _GO_ON
                agreed = self._agreement.exchange(code)
                if agreed == _NOT_FINITE:
                    raise Diverged(f"the loss was not finite in epoch {epoch + 1}, by step {self.position.step}")
                if agreed == _STOP:
                    self._checkpoint(totals, clock.spent())
                    self._checkpoints.wait()
                    raise Interrupted(f"{stop.signal or 'a signal on another rank'} at step {self.position.step}")
                self.world.pulse.at(self.position.step, WAITS_FOR_DATA)
                with clock.waiting():
                    batch = next(batches)
                clock.saw(self.task.count(batch))
                self.world.pulse.at(self.position.step, TRAINS)
                totals += self._step(network, batch)
                if self._tracker is not None:
                    self._tracker.observe()
                self._watch.observe(totals[0], totals[-1])
                if self.world.is_main and clock.due():
                    show(self._progress(epoch, clock, self._watch.loss()))
        self._agreement.settle()
        return totals

    def _step(self, network: nn.Module, batch: Any) -> Tensor:
        """One optimizer step; returns the batch's totals, on the device, without waiting for it."""
        lr = self._lr(self.position.step) * self.task.lr_factor(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # Dropout draws from a generator that is seeded by the step and the rank: nothing to keep, nothing to replay.
        torch.manual_seed(
            (self.config.seed * self.total_steps + self.position.step) * self.world.world_size + self.world.rank
        )
        loss, totals = self.task.loss(network, batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self._tracker is not None:
            self._tracker.see_gradients()
        if self.task.clip:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.task.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self._average is not None:
            self._average.update()
        self.position.step += 1
        return totals

    def _finish_epoch(self, epoch: int, totals: Tensor, clock: EpochClock, show: _Show) -> Evaluation | None:
        """Records, evaluates where due, and checkpoints. The records come first: a crash repeats them at worst."""
        train_seconds, rate = clock.seconds(), clock.rate()
        summed = self.world.sum(totals)
        if not bool(torch.isfinite(summed).all()):
            raise Diverged(f"the loss was not finite in epoch {epoch + 1}, by step {self.position.step}")
        figures = self.task.figures(summed)
        self.position.train_loss = figures["loss"]
        self._record(
            epoch,
            "train",
            **figures,
            lr=self._lr(self.position.step - 1),
            data_wait=clock.waited / train_seconds,
            seconds_train=train_seconds,
            seconds_checkpoint=self.position.checkpoint_seconds,
            world_size=self.world.world_size,
            peak_memory_bytes=peak_memory_bytes(self.world.device),
            **{f"{self.task.UNIT}_per_s": rate},
        )
        self.position.totals, self.position.spent, self.position.checkpoint_seconds = [], [], 0.0
        last = self.position.step == self.total_steps
        evaluation = None
        if last or (epoch + 1) % self.config.train.eval_every == 0:
            begin = time.perf_counter()
            evaluation = self._evaluate()
            self._note_best(evaluation, epoch)
            if self._average is not None:
                self._average.observe(evaluation.loss)
            self._record(
                epoch,
                "val",
                loss=evaluation.loss,
                **evaluation.figures,
                **{self.task.UNIT: evaluation.count},
                seconds_eval=time.perf_counter() - begin,
            )
        if self._tracker is not None and (last or (epoch + 1) % self.config.train.oscillation_window == 0):
            self.run.append_oscillation({"epoch": epoch + 1, "step": self.position.step, **self._tracker.end_window()})
        if last or (epoch + 1) % self.config.train.checkpoint_every == 0:
            self._checkpoint(torch.zeros_like(totals), spent=[])
        if self.world.is_main:
            done = {"epoch_done": True, **(evaluation.figures if evaluation else {})}
            show(self._progress(epoch, clock, figures["loss"]) | done)
        return evaluation

    def _evaluate(self) -> Evaluation:
        self.world.pulse.at(self.position.step, EVALUATES)
        self.world.sync_buffers(self.model)
        with self._averaged():
            evaluation = self.task.evaluate(self.model)
        if not math.isfinite(evaluation.loss):
            raise Diverged(f"the validation loss was not finite at step {self.position.step}")
        return evaluation

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return self._average.applied() if self._average is not None else contextlib.nullcontext()

    def _note_best(self, evaluation: Evaluation, epoch: int) -> None:
        value, best = evaluation.figures[self.task.HEADLINE], self.position.best
        if best is None or (value < best if self.task.LOWER_IS_BETTER else value > best):
            self.position.best, self.position.best_epoch = value, epoch + 1

    def _checkpoint(self, totals: Tensor, spent: list[float]) -> None:
        begin = time.perf_counter()
        self.world.pulse.at(self.position.step, WRITES_CHECKPOINT)
        self.position.totals, self.position.spent = self.world.gather(totals.tolist()), spent
        carried = self.task.state()
        self.position.seconds = time.perf_counter() - self._began
        if self.world.is_main:
            state = {
                "identity": identity(self.config),
                "data": {split: f["content_hash"] for split, f in self.task.fingerprint.items()},
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "position": asdict(self.position),
                "task": carried,
                "average": self._average.state_dict() if self._average else None,
                "oscillation": self._tracker.state_dict() if self._tracker else None,
            }
            self._checkpoints.save(self.position.step, state)
        self.position.checkpoint_seconds += time.perf_counter() - begin

    def _totals_so_far(self) -> Tensor:
        """This rank's share of the totals of an epoch that an earlier attempt left in the middle, else zeros."""
        rows = self.position.totals or [[0.0] * len(self.task.TOTALS)]
        table = torch.tensor(rows, dtype=torch.float64, device=self.world.device)
        if len(rows) == self.world.world_size:
            return table[self.world.rank].clone()
        return table.sum(dim=0) if self.world.is_main else torch.zeros_like(table[0])

    def _wrap(self) -> nn.Module:
        network = data_parallel(self.model, self.world, self.task.example_loss)
        return torch.compile(network) if self.config.train.compile else network

    def _lr(self, step: int) -> float:
        s = self.config.schedule
        return learning_rate(
            s.name,
            self.config.optimizer.lr * self.config.scale.lr_factor,
            step,
            total_steps=self.total_steps,
            steps_per_epoch=self.task.steps_per_epoch,
            warmup_epochs=s.warmup_epochs,
            milestones=s.milestones,
            gamma=s.gamma,
        )

    def _record(self, epoch: int, split: str, **figures: float | int | None) -> None:
        if self.world.is_main:
            record = {"epoch": epoch + 1, "split": split, "step": self.position.step, "time": time.time()}
            self.run.append_metrics(record | figures)

    def _progress(self, epoch: int, clock: EpochClock, loss: float | None) -> dict[str, Any]:
        return {
            "epoch": epoch + 1,
            "epochs": self.config.scale.epochs,
            "step": self.position.step,
            "steps": self.total_steps,
            "loss": loss,
            f"{self.task.UNIT}_per_s": clock.rate(),
            "seconds_left": clock.seconds_a_step() * (self.total_steps - self.position.step),
        }
