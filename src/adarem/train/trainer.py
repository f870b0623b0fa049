"""The training loop, top to bottom. It knows steps, epochs and ranks, and nothing of images, words or file names."""

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adarem import caches
from adarem.native import SlowerWarning
from adarem.run.catalog import METRICS
from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.identity import identity
from adarem.run.records import text
from adarem.train.checkpoint import CheckpointWriter
from adarem.train.console import Progress, ShowProgress
from adarem.train.distributed.context import RankContext
from adarem.train.distributed.data_parallel import (
    FirstPassBuffers,
    data_parallel,
    normalised_together,
    without_exchange,
)
from adarem.train.distributed.heartbeat import Activity
from adarem.train.distributed.stop import StopCode, StopConsensus, StopRequest
from adarem.train.evaluation_point import EvaluationPoint
from adarem.train.metrics import AsyncLossReader, EpochTime, EpochTimer, peak_memory_bytes
from adarem.train.oscillation import OscillationTracker
from adarem.train.schedule import learning_rate
from adarem.train.seeding import seed_generators
from adarem.train.state import CheckpointRecord, PartialEpoch, TrainingState
from adarem.train.tasks.base import Batch, Evaluation, FinalResult, Part, Task
from adarem.train.watch import StepWatch, interval


class Diverged(Exception):
    """The loss is not finite any more; no checkpoint holds that state."""


class Interrupted(Exception):
    """A signal asked for an end; a checkpoint holds everything up to here."""


class Paused(Exception):
    """The run is at the rung up to which it may train now; a checkpoint holds everything up to here."""


class Trainer:
    """Trains one run from its last checkpoint to its last epoch. Rank 0 alone writes to the run directory.

    Args:
        config: of the run.
        run: the run directory.
        context: of this rank.
        task: gives batches, losses and evaluations; its batches go back to it unread.
        model: on the context's device, not wrapped.
        optimizer: over the model's parameters.
    """

    def __init__(
        self,
        config: RunConfig,
        run: RunDir,
        context: RankContext,
        task: Task,
        model: nn.Module,
        optimizer: Optimizer,
    ) -> None:
        self.config, self.run, self.context, self.task = config, run, context, task
        self.model, self.optimizer = model, optimizer
        # As built: those of a checkpoint are scheduled.
        self._base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        of_config = config.train.clip_grad_norm
        self._clip_norm = task.info.clip_norm if of_config is None else of_config
        self.state = TrainingState()
        self.total_steps = self._until = config.scale.epochs * task.info.steps_per_epoch
        self.scaler = torch.amp.GradScaler(context.device.type, enabled=config.scale.precision == "fp16")
        self._passes = config.scale.passes(context.world_size)
        images_per_pass = config.scale.images_per_pass(context.world_size)
        self.normalised_together = normalised_together(model, images_per_pass, context.world_size)
        self._point = EvaluationPoint(model, optimizer, task, context, self._parts)
        self._buffers = FirstPassBuffers(model)
        self._exchanging = model  # under DDP once ``fit`` has begun
        self._evaluated: dict[str, object] | None = None  # the model at the average, once the run is at its end
        self._checkpoints = CheckpointWriter(run.checkpoints)
        self._consensus = StopConsensus(context)
        self._loss_reader = AsyncLossReader(context.device)
        every = interval(config.train.watch_every, self.total_steps)
        self._watch: StepWatch | None = None
        if every and context.is_main:  # parameters and gradients are the same on every rank
            self._watch = StepWatch(model, optimizer, self.scaler, every, run.append_step)
        self._tracker: OscillationTracker | None = None
        if config.train.oscillation and context.is_main:  # parameters are the same on every rank
            self._tracker = OscillationTracker(
                model.named_parameters(),
                seed=config.seed,
                total_steps=self.total_steps,
                watched_steps=config.train.watched_steps,
            )

    def restore(self, record: CheckpointRecord) -> None:
        """Takes over a checkpoint's state; the number of ranks may have changed since."""
        self.model.load_state_dict(record["model"])
        self.optimizer.load_state_dict(_with_flags_of(self.optimizer, record["optimizer"]))
        self.scaler.load_state_dict(record["scaler"])
        self.state = TrainingState.from_record(record["training"])
        self.task.load_state_dict(record["task"])
        if self._tracker is not None:
            assert record["oscillation"] is not None
            self._tracker.load_state_dict(record["oscillation"])

    def fit(self, stop: StopRequest, show: ShowProgress, until: int | None = None) -> Evaluation:
        """Trains to the last epoch and returns the evaluation after it.

        Args:
            until: epochs to stop after, all else being as of the complete length; None: the last.
            stop: asks for an orderly end; the request of one rank is enough.
            show: called on rank 0 every second or so, and after each epoch.

        Raises:
            Diverged: the loss is not finite.
            Interrupted: ``stop`` asked for an end, and a checkpoint of the last step is on disk.
            Paused: ``until`` is reached, and that checkpoint is on disk.
        """
        network = self._wrap()
        self._until = (until or self.config.scale.epochs) * self.task.info.steps_per_epoch
        self._began = time.perf_counter() - self.state.seconds
        evaluation = None
        while self.state.step < self._until:
            epoch = self.state.step // self.task.info.steps_per_epoch
            timer = EpochTimer(self.state.partial_epoch.time if self.state.partial_epoch else None)
            totals = self._train_epoch(network, epoch, timer, stop, show)
            evaluation = self._finish_epoch(epoch, totals, timer, show)
        self._checkpoints.wait()
        if self.state.step < self.total_steps:
            raise Paused(f"after epoch {until} of {self.config.scale.epochs}")
        self.state.seconds = time.perf_counter() - self._began
        # None for a run that was interrupted after its last step: it is evaluated again, with the same outcome.
        return evaluation or self._evaluate(self.config.scale.epochs - 1)

    def final(self, evaluation: Evaluation) -> FinalResult:
        """What the result holds next to the losses. Every rank must call."""
        assert self.state.best is not None
        with self._point.applied(self.config.scale.epochs - 1):
            final = self.task.final(self.model, evaluation, self.state.best)
        if not self._point.averages:
            return final
        measured = {"point": "the optimizer's average", "batch_norm_batches": self._point.batch_norm_batches}
        return replace(final, evaluation={**final.evaluation, **measured})

    def _train_epoch(
        self, network: nn.Module, epoch: int, timer: EpochTimer, stop: StopRequest, show: ShowProgress
    ) -> Tensor:
        """The rest of an epoch from the current step on; returns this rank's totals over the complete epoch."""
        heartbeat, consensus, state = self.context.heartbeat, self._consensus, self.state
        totals = self._totals_so_far()
        loss_sum, count = totals[0], totals[-1]  # which change with the totals
        first = state.step % self.task.info.steps_per_epoch
        with self.task.batches(epoch, first) as batches:
            for _ in range(first, self.task.info.steps_per_epoch):
                # What this rank asks for; what all ranks asked for one step ago.
                code = StopCode.CONTINUE
                if self._loss_reader.not_finite():
                    code = StopCode.NOT_FINITE
                elif stop.signal:
                    code = StopCode.STOP
                agreed = consensus.exchange(code)
                if agreed == StopCode.NOT_FINITE:
                    self._write_watched()
                    raise Diverged(f"the loss was not finite in epoch {epoch + 1}, by step {state.step}")
                if agreed == StopCode.STOP:
                    self._checkpoint(totals, timer.spent())
                    self._checkpoints.wait()
                    raise Interrupted(f"{stop.signal or 'a signal on another rank'} at step {state.step}")

                heartbeat.beat(state.step, Activity.WAITING_FOR_DATA)
                with timer.waiting():
                    batch = next(batches)
                timer.add(batch.count)

                heartbeat.beat(state.step, Activity.TRAINING)
                totals += self._step(network, batch)
                if self._tracker is not None:
                    self._tracker.observe()

                self._loss_reader.observe(loss_sum, count)
                if self.context.is_main and timer.due():
                    show(self._progress(epoch, timer, self._loss_reader.loss()))
        consensus.settle()
        return totals

    def _step(self, network: nn.Module, batch: Batch) -> Tensor:
        """One optimizer step; returns the batch's totals, on the device, without waiting for it."""
        for group, base_lr in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = self._lr(self.state.step, base_lr) * batch.lr_factor
        self.optimizer.zero_grad(set_to_none=True)
        totals = self._accumulate_gradient(network, batch)
        if self._tracker is not None:
            self._tracker.see_gradients()
        watch = self._watch if self._watch is not None and self._watch.due(self.state.step + 1) else None
        if watch is not None:
            watch.see_gradients()
        if self._clip_norm:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        if watch is not None:
            watch.before_step(unscaled=bool(self._clip_norm))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if watch is not None:
            lr = self._lr(self.state.step, self.config.optimizer.lr * self.config.scale.lr_factor) * batch.lr_factor
            watch.after_step(self.state.step + 1, lr, totals)
        self.state.step += 1
        return totals

    def _write_watched(self) -> None:
        """Where the loop waits for the device anyway."""
        if self._watch is not None:
            self._watch.flush()

    def _accumulate_gradient(self, network: nn.Module, batch: Batch) -> Tensor:
        """Adds the gradient of a batch's mean loss, in as many passes as the config says; returns its totals.

        Ranks exchange the gradient once, in the last pass. Of the buffers, those after the first pass stay: BatchNorm's
        running statistics follow the part of rank 0, as they do on more ranks.
        """
        totals: list[Tensor] = []
        for part in self._parts(batch, self.state.step):
            last = len(totals) == self._passes - 1
            with nullcontext() if last else without_exchange(self._exchanging):
                loss, of_part = self.task.loss(network, part)
                torch.autograd.backward(self.scaler.scale(loss if self._passes == 1 else loss / self._passes))
            totals.append(of_part)
            if not last:
                self.context.heartbeat.repeat()
                if len(totals) == 1:
                    self._buffers.keep()
        if self._passes == 1:
            return totals[0]
        self._buffers.put_back()
        return torch.stack(totals).sum(dim=0)

    def _parts(self, batch: Batch, step: int) -> Iterator[Batch]:
        """A batch in the parts that pass through the network one by one, the random numbers of each seeded.

        Dropout draws from a generator that is seeded by step and rank: a checkpoint needs no state of it. A part draws
        as the rank that would have it, were there as many ranks as parts.
        """
        parts = [Part(batch, self.context.rank)] if self._passes == 1 else self.task.parts(batch, self._passes)
        of_step = (self.config.seed * self.total_steps + step) * self.context.world_size * self._passes
        for part in parts:
            seed_generators(of_step + part.rank, self.context.device)
            yield part.batch

    def _finish_epoch(self, epoch: int, totals: Tensor, timer: EpochTimer, show: ShowProgress) -> Evaluation | None:
        """Records, evaluates where due, and checkpoints. Records come first: after a crash they are only repeated."""
        unit, train_seconds, rate = self.task.info.unit, timer.seconds(), timer.rate()
        self._write_watched()
        summed = self.context.sum(totals)
        if not bool(torch.isfinite(summed).all()):
            raise Diverged(f"the loss was not finite in epoch {epoch + 1}, by step {self.state.step}")
        metrics = self.task.metrics(summed)
        self.state.train_loss = metrics["loss"]
        record = {
            **metrics,
            "lr": self._lr(self.state.step - 1, self.config.optimizer.lr * self.config.scale.lr_factor),
            "data_wait": timer.waited_seconds / train_seconds,
            "seconds_train": train_seconds,
            "seconds_checkpoint": self.state.checkpoint_seconds,
            "world_size": self.context.world_size,
            **({} if self.normalised_together is None else {"batch_norm_images": self.normalised_together}),
            "peak_memory_bytes": peak_memory_bytes(self.context.device),
            f"{unit}_per_s": rate,
        }
        self._record(epoch, "train", record)
        self.state.partial_epoch, self.state.checkpoint_seconds = None, 0.0

        last = self.state.step == self.total_steps
        evaluation = None
        if last or (epoch + 1) % self.config.train.eval_every == 0:
            begin = time.perf_counter()
            evaluation = self._evaluate(epoch)
            self._note_best(evaluation, epoch)
            record = {"loss": evaluation.loss, **evaluation.metrics, unit: evaluation.count}
            self._record(epoch, self.task.info.evaluated_on, record | {"seconds_eval": time.perf_counter() - begin})

        if self._tracker is not None and (last or (epoch + 1) % self.config.train.oscillation_window == 0):
            self.run.append_oscillation({"epoch": epoch + 1, "step": self.state.step, **self._tracker.end_window()})
        if self.state.step == self._until or (epoch + 1) % self.config.train.checkpoint_every == 0:
            self._checkpoint(totals, None)
        if self.context.is_main:
            shown = evaluation.metrics if evaluation else {}
            show(self._progress(epoch, timer, metrics["loss"], epoch_done=True, metrics=shown))
        return evaluation

    def _evaluate(self, epoch: int) -> Evaluation:
        self.context.heartbeat.beat(self.state.step, Activity.EVALUATING)
        self.context.broadcast_buffers(self.model)
        with self._point.applied(epoch):
            evaluation = self.task.evaluate(self.model)
            if self._point.averages and self.state.step == self.total_steps and self.context.is_main:
                self._evaluated = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        if not math.isfinite(evaluation.loss):
            raise Diverged(f"the validation loss was not finite at step {self.state.step}")
        return evaluation

    def _note_best(self, evaluation: Evaluation, epoch: int) -> None:
        name, best = self.task.info.primary_metric, self.state.best
        value = evaluation.metrics[name]
        if best is None or METRICS[name].better(value, best):
            self.state.best, self.state.best_epoch = value, epoch + 1

    def _checkpoint(self, totals: Tensor, spent: EpochTime | None) -> None:
        """Every rank must call. ``spent``: on the epoch where it is not complete."""
        begin = time.perf_counter()
        self.context.heartbeat.beat(self.state.step, Activity.WRITING_CHECKPOINT)
        if spent is not None:
            columns = self.task.info.totals
            rows = self.context.gather(dict(zip(columns, totals.tolist(), strict=True)))
            self.state.partial_epoch = PartialEpoch(tuple(rows), spent)
        self._write_watched()
        if self.context.is_main:
            self.run.sync_steps()  # a run goes on behind the records that were there at its checkpoint
        task_state = self.task.state_dict()
        self.state.seconds = time.perf_counter() - self._began
        if self.context.is_main:
            record: CheckpointRecord = {
                "identity": identity(self.config),
                "content_hashes": content_hashes(self.task),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "training": self.state.to_record(),
                "task": task_state,
                "oscillation": self._tracker.state_dict() if self._tracker else None,
            }
            if self._evaluated is not None:
                record["evaluated"] = self._evaluated
            self.run.check_there()
            self._checkpoints.save(self.state.step, record)
        self.state.checkpoint_seconds += time.perf_counter() - begin

    def _totals_so_far(self) -> Tensor:
        """This rank's part of the totals of an epoch that an earlier attempt began, else zeros."""
        columns, partial = self.task.info.totals, self.state.partial_epoch
        if partial is None:
            return torch.zeros(len(columns), dtype=torch.float64, device=self.context.device)
        rows = [[row[name] for name in columns] for row in partial.totals]
        table = torch.tensor(rows, dtype=torch.float64, device=self.context.device)
        if len(rows) == self.context.world_size:
            return table[self.context.rank].clone()
        return table.sum(dim=0) if self.context.is_main else torch.zeros_like(table[0])

    def _wrap(self) -> nn.Module:
        self._exchanging = data_parallel(self.model, self.context, self.task.example_input())
        if not self.config.train.compile:
            return self._exchanging
        for variable, name in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
            if note := caches.use_private(variable, name):
                warnings.warn(note, SlowerWarning, stacklevel=2)
        return cast(nn.Module, torch.compile(self._exchanging))

    def _lr(self, step: int, base_lr: float) -> float:
        """The schedule's multiple of a group's own rate."""
        s = self.config.schedule
        return learning_rate(
            s.name,
            base_lr,
            step,
            total_steps=self.total_steps,
            steps_per_epoch=self.task.info.steps_per_epoch,
            warmup_epochs=s.warmup_epochs,
            milestones=s.milestones,
            gamma=s.gamma,
            min_factor=s.min_lr / self.config.optimizer.lr,
        )

    def _record(self, epoch: int, split: str, metrics: Mapping[str, float | int]) -> None:
        if self.context.is_main:
            self.run.check_there()
            place = {"epoch": epoch + 1, "split": split, "step": self.state.step, "time": time.time()}
            self.run.append_metrics({**place, **metrics})

    def _progress(
        self,
        epoch: int,
        timer: EpochTimer,
        loss: float | None,
        *,
        epoch_done: bool = False,
        metrics: Mapping[str, float] | None = None,
    ) -> Progress:
        return Progress(
            epoch=epoch + 1,
            epochs=self.config.scale.epochs,
            step=self.state.step,
            steps=self.total_steps,
            loss=loss,
            unit=self.task.info.unit,
            units_per_second=timer.rate(),
            seconds_left=timer.seconds_per_step() * (self.total_steps - self.state.step),
            epoch_done=epoch_done,
            metrics=metrics or {},
        )


def _with_flags_of(optimizer: Optimizer, state: dict[str, object]) -> dict[str, object]:
    """An optimizer's state with ``optimizer``'s choice of implementation, which ranks agree on anew in each attempt."""
    saved = state.get("param_groups")
    if not isinstance(saved, list) or len(saved) != len(optimizer.param_groups):
        return state  # not torch's form, or refused in its own words
    flags = [{flag: g[flag] for flag in ("foreach", "fused") if flag in g} for g in optimizer.param_groups]
    return {**state, "param_groups": [{**group, **own} for group, own in zip(saved, flags, strict=True)]}


def content_hashes(task: Task) -> dict[str, str]:
    """Split to the hash of its data, by which a checkpoint recognises them."""
    return {split: text(record, "content_hash") for split, record in task.info.fingerprint.items()}
