"""Trains one run directory. A fresh start, a resume, a requeue and a debugging session are the same call."""

import json
import os
import re
import shlex
import shutil
import statistics
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from adarem.data.unchanged import check_like_finished, check_unchanged
from adarem.run import exitcodes
from adarem.run.config import DataConfig, RunConfig, TextConfig, check_micro_batch
from adarem.run.directory import FINISHED, RunDir
from adarem.run.errors import UserError
from adarem.run.halving import place_of
from adarem.run.identity import config_hash, identity
from adarem.run.records import number
from adarem.run.text import duration
from adarem.run.text_models import LstmConfig
from adarem.tracking.sync import SyncProcess
from adarem.train.attempt import Attempt
from adarem.train.checkpoint import Newest, find_newest, load
from adarem.train.console import print_line
from adarem.train.distributed.context import RankContext, join, on_main_rank, raise_on_all_ranks
from adarem.train.distributed.place import check_step
from adarem.train.distributed.rendezvous import StoppedWaiting
from adarem.train.distributed.stop import SignalListener, StopRequest
from adarem.train.distributed.watchdog import Watchdog
from adarem.train.implementation import Implementation, agree
from adarem.train.models.build import initialise
from adarem.train.models.library import count_parameters
from adarem.train.named_optimizers import build_named, load_named
from adarem.train.optimizers import build_optimizer
from adarem.train.slower import collecting, of_all_ranks
from adarem.train.state import CheckpointRecord
from adarem.train.tasks.base import Evaluation, FinalResult, Task
from adarem.train.tasks.image import ImageTask
from adarem.train.tasks.language import LanguageTask
from adarem.train.tasks.windows import WindowTask
from adarem.train.trainer import Diverged, Interrupted, Paused, Trainer, content_hashes

# Beyond cluster.stall_seconds, so that the watchdog, which can name the rank, is first.
COLLECTIVE_TIMEOUT_MARGIN_SECONDS = 60.0


def train(path: Path) -> int:
    """One rank of a run's training; the launcher or srun starts as many as the run has.

    Returns:
        An exit code of ``adarem.run.exitcodes``.

    Raises:
        UserError: on every rank, for a mistake that any of them found.
        RankLost: another rank ended.
    """
    run = RunDir(path.absolute())
    config = run.config()

    # The process group.
    check_step(config.cluster)
    stop = SignalListener()
    timeout = config.cluster.stall_seconds + COLLECTIVE_TIMEOUT_MARGIN_SECONDS
    try:
        context = join(config.cluster.device, timeout, stop)
    except StoppedWaiting as e:
        print_line(config.run_name, f"interrupted: {e}; the same command starts again")
        # A launcher sends SIGTERM to the ranks that wait for one that failed: its exit code is the one that counts.
        return exitcodes.FAILED if e.signal == "SIGTERM" else exitcodes.REQUEUE

    # One attempt, watched, and recorded however it ends.
    attempt = Attempt(run, config, context)
    try:
        with Watchdog(context, config.cluster.stall_seconds, attempt.report_failure) as watchdog, ExitStack() as stack:
            try:
                until = on_main_rank(context, lambda: _claim(run, config, stack))
                if not until:
                    return exitcodes.OK
                implementation = agree(context, config.optimizer)
                attempt.begin(stack, implementation)
                code = _train(run, config, context, stop, attempt, implementation, stack, until)
                context.barrier()  # rank 0 writes the result first: the exit of a rank may end the whole job
            except BaseException as e:
                attempt.fail(e, watchdog)
                raise
            return code
    finally:
        context.close()


def _claim(run: RunDir, config: RunConfig, stack: ExitStack) -> int:
    """Locks the run for this process and returns the epochs up to which it may train; 0: nothing is left to do, which
    it says.

    Raises:
        UserError: its result was edited by hand; it is finished, and its data are not those that it read.
    """
    stack.enter_context(run.lock())
    run.result()
    check_unchanged([(run, config)])
    if run.status() in FINISHED:
        print(f"{config.run_name}: finished before; remove {run.path} to train it again", flush=True)
        return 0
    if (place := place_of(run)) is None:
        return config.scale.epochs
    if place.state != "due":
        print(f"{config.run_name}: {place.text()}{place.waiting()}", flush=True)
        return 0
    return place.until


def _train(
    run: RunDir,
    config: RunConfig,
    context: RankContext,
    stop: StopRequest,
    attempt: Attempt,
    implementation: Implementation | None,
    stack: ExitStack,
    until: int,
) -> int:
    """Trains to an end that all ranks come to, records it and returns its exit code.

    Args:
        until: epochs up to which the run may train now, all of them but in a search with halving.
    """
    # Data, network and optimizer, then the state of the last checkpoint.
    newest = Newest.of(on_main_rank(context, lambda: find_newest(run.checkpoints).texts()))  # all ranks load the same
    fused = implementation is None or implementation.fused
    with collecting() as slower:
        trainer = _build(run, config, context, resumes=newest.path is not None, fused=fused)
    known = implementation.notes if implementation else ()
    slow = [note for note in of_all_ranks(context, slower) if note not in known]
    on_main_rank(context, lambda: check_like_finished(run, config, trainer.task.info.fingerprint))
    notes = _restore(trainer, newest)
    on_main_rank(context, lambda: run.keep_steps(trainer.state.step))

    # A process of its own copies the run directory to wandb.
    if attempt.console is not None:
        wandb_copy = SyncProcess(run, config)
        stack.callback(wandb_copy.close)
        for note in [*slow, *notes, *filter(None, [wandb_copy.problem])]:
            attempt.console.info(note)

    # Training and its four ends.
    try:
        evaluation = trainer.fit(stop, attempt.console.show if attempt.console else lambda progress: None, until)
        final = trainer.final(evaluation)
    except Diverged as e:
        if context.is_main:
            run.write_result(_diverged_result(trainer, str(e)))
        attempt.end("diverged", f"{e}; lower optimizer.lr or look at the data")
        return exitcodes.DIVERGED
    except Paused as e:
        attempt.end("paused", f"{e}; it goes on if it is among the better trials")
        return exitcodes.OK
    except Interrupted as e:
        attempt.end("interrupted", f"{e}; the same command again goes on from there")
        return exitcodes.REQUEUE
    if context.is_main:
        if evaluation.correct is not None:
            run.write_correct(evaluation.correct)
        run.write_result(_result(trainer, evaluation, final))
    attempt.end("done", f"{final.summary}, {duration(trainer.state.seconds)} of training")
    return exitcodes.OK


def _build(
    run: RunDir, config: RunConfig, context: RankContext, *, resumes: bool = False, fused: bool = True
) -> Trainer:
    """Data, network and optimizer at step 0; for a run that resumes, the file of weights to start from is not read.

    With ``fused=False`` foreach takes AdaRem's steps.

    Raises UserError on every rank where any of them cannot be built.
    """
    _set_up_torch(config, context)
    raise_on_all_ranks(context, lambda: _check_host(config, context))

    task = raise_on_all_ranks(context, lambda: _build_task(run, config, context))
    model = task.build_model()
    if not resumes:
        raise_on_all_ranks(context, lambda: initialise(model, config))
    model = model.to(context.device)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = raise_on_all_ranks(context, lambda: _build_optimizer(config, context, task, model, fused))
    return Trainer(config, run, context, task, model, optimizer)


def _build_optimizer(config: RunConfig, context: RankContext, task: Task, model: nn.Module, fused: bool) -> Optimizer:
    o, lr = config.optimizer, config.optimizer.lr * config.scale.lr_factor
    if o.imported is not None:
        return build_named(
            load_named(o.imported),
            model,
            lr=lr,
            weight_decay=o.weight_decay,
            hparams=o.hparams,
            steps_per_epoch=task.info.steps_per_epoch,
            total_steps=config.scale.epochs * task.info.steps_per_epoch,
            decay_norm_and_bias=config.train.decay_norm_and_bias,
            no_decay=o.no_decay,
        )
    return build_optimizer(
        o.name,
        model,
        lr=lr,
        weight_decay=o.weight_decay,
        hparams=o.hparams,
        steps_per_epoch=task.info.steps_per_epoch,
        example_input=task.example_input().to(context.device),
        decay_norm_and_bias=config.train.decay_norm_and_bias,
        no_decay=o.no_decay,
        fused=fused,
    )


def _set_up_torch(config: RunConfig, context: RankContext) -> None:
    if config.cluster.threads_per_rank:
        torch.set_num_threads(config.cluster.threads_per_rank)
    if context.device.type == "cuda":
        torch.backends.cudnn.benchmark = not config.train.deterministic  # shapes do not change from step to step
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
        torch.use_deterministic_algorithms(True)


def _check_host(config: RunConfig, context: RankContext) -> None:
    """Raises UserError where this host or the number of ranks does not fit the config."""
    batch = config.scale.global_batch_size
    if batch % context.world_size:
        raise UserError(
            f"scale.global_batch_size={batch}: {context.world_size} ranks were started, which do not divide it; start "
            f"as many as the config says (cluster.nodes * cluster.ranks_per_node={config.cluster.world_size})"
        )
    check_micro_batch(config.scale, context.world_size)
    if not isinstance(config.data, DataConfig):
        return
    cpus = len(os.sched_getaffinity(0))
    if config.data.workers > cpus:
        raise UserError(
            f"data.workers={config.data.workers}: rank {context.rank} on {context.host} may use {cpus} CPUs; lower it, "
            "or on Slurm raise cluster.cpus_per_rank"
        )
    if config.data.backend == "folder":  # worker processes hand over batches in shared memory, each two ahead
        needed = 2 * config.data.workers * 3 * config.data.train_crop**2 * batch // context.world_size
        free = shutil.disk_usage("/dev/shm").free
        if free < needed:
            raise UserError(
                f"/dev/shm on {context.host}: {free / 1e6:.1f} MB free, data.backend=folder needs "
                f"{needed / 1e6:.1f} MB per rank; enlarge it (docker: --shm-size), lower data.workers, or use "
                "data.backend=ffcv"
            )


def _build_task(run: RunDir, config: RunConfig, context: RankContext) -> Task:
    """The data, opened. What an error says of `adarem prepare` has this run's settings, all of them."""
    try:
        return _task_of(config, context)
    except UserError as e:
        command = f"`adarem prepare {shlex.quote(str(run.path))}`"
        said = re.sub(r"`adarem prepare( (data|grid)=[^`]*)?`", lambda _: command, str(e))
        raise UserError(said, retryable=e.retryable, reported=e.reported) from None


def _task_of(config: RunConfig, context: RankContext) -> Task:
    if not isinstance(config.data, TextConfig):
        return ImageTask(config, context)
    return LanguageTask(config, context) if isinstance(config.model, LstmConfig) else WindowTask(config, context)


def _restore(trainer: Trainer, newest: Newest) -> list[str]:
    """Loads the newest checkpoint, if there is one; returns what a person should read about it."""
    context, path, m = trainer.context, newest.path, trainer.config.model
    if path is None:
        hosts = ", ".join(sorted(set(context.hosts)))
        parameters, device = count_parameters(trainer.model), context.device.type
        return [
            *newest.notes,
            *([f"weights of {m.init} ({(m.init_sha256 or '')[:12]})"] if m.init else []),
            f"starting, {parameters:,} parameters, {context.world_size} ranks on {hosts} ({device})",
        ]
    record = raise_on_all_ranks(context, lambda: load(path))
    raise_on_all_ranks(context, lambda: _check_checkpoint(trainer, record))
    trainer.restore(record)
    return [*newest.notes, f"going on from step {trainer.state.step} of {trainer.total_steps}"]


def _check_checkpoint(trainer: Trainer, record: CheckpointRecord) -> None:
    """Raises UserError for a checkpoint of other settings or other data."""
    mine, its = json.loads(json.dumps(identity(trainer.config))), record["identity"]
    differing = [k for k in sorted({*mine, *its}) if mine.get(k) != its.get(k)]
    if differing:
        raise UserError(
            f"{trainer.run.checkpoints}: made with other settings of {', '.join(differing)}; "
            "restore config.yaml, or remove the run and plan it again"
        )
    if record["content_hashes"] != content_hashes(trainer.task):
        data = trainer.config.data
        place = data.beton_dir if isinstance(data, DataConfig) else data.root
        raise UserError(
            f"{trainer.run.path}: the data in {place} changed since this run began; "
            "put the old files back, or remove the run and plan it again"
        )


def _diverged_result(trainer: Trainer, reason: str) -> dict[str, object]:
    """What result.json holds of a run that ended early."""
    return {
        "status": "diverged",
        "reason": reason,
        "step": trainer.state.step,
        "epoch": -(-trainer.state.step // trainer.task.info.steps_per_epoch) or 1,
        "config_hash": config_hash(trainer.config),
        "fingerprint": trainer.task.info.fingerprint,
    }


def _result(trainer: Trainer, evaluation: Evaluation, final: FinalResult) -> dict[str, object]:
    """What result.json holds of a finished run."""
    run, config, state, world_size = trainer.run, trainer.config, trainer.state, trainer.context.world_size
    attempt = run.attempts()[-1]
    rate = f"{trainer.task.info.unit}_per_s"
    rates = [r for m in run.metrics() if m["split"] == "train" and (r := number(m, rate)) is not None]
    cuda = trainer.context.device.type == "cuda"
    return {
        "status": "done",
        "epochs": config.scale.epochs,
        "steps": state.step,
        f"{trainer.task.info.evaluated_on}_loss": evaluation.loss,
        "train_loss": state.train_loss,
        "best_epoch": state.best_epoch,
        "parameters": count_parameters(trainer.model),
        "config_hash": config_hash(config),
        "fingerprint": trainer.task.info.fingerprint,
        "evaluation": final.evaluation,
        "world_size": world_size,
        "batch_norm_images": trainer.normalised_together,
        "device": attempt["device"],
        "seconds": state.seconds,
        "gpu_hours": state.seconds / 3600 * world_size if cuda else None,
        rate: statistics.median(rates),
        "commit": attempt["commit"],
        "dirty": attempt["dirty"],
        **final.metrics,
    }
