"""Trains one run directory. A fresh start, a resume, a requeue and a debugging session are the same call."""

import json
import os
import shutil
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from adarem.run import exitcodes
from adarem.run.config import RunConfig, TextConfig, config_hash, identity
from adarem.run.directory import FINISHED, RunDir
from adarem.run.errors import UserError
from adarem.tracking.sync import SyncProcess
from adarem.train.attempt import Attempt
from adarem.train.checkpoint import find_newest, load
from adarem.train.console import duration
from adarem.train.distributed.context import StopRequest, World, start_world, together
from adarem.train.distributed.rendezvous import StoppedWaiting
from adarem.train.distributed.watchdog import Watchdog
from adarem.train.models.library import count_parameters
from adarem.train.optimizers import build_optimizer
from adarem.train.tasks.image import Evaluation, ImageTask, Task
from adarem.train.tasks.language import LanguageTask
from adarem.train.trainer import Diverged, Interrupted, Trainer

# Beyond cluster.stall_seconds, so that the watchdog, which can name the rank, is first.
COLLECTIVE_TIMEOUT_MARGIN_SECONDS = 60.0


def train(path: Path) -> int:
    """One rank of a run's training; torchrun or srun starts as many as the run has.

    Returns:
        An exit code of ``adarem.run.exitcodes``.

    Raises:
        UserError: on every rank, when something that the user can mend is wrong on any of them.
    """
    run = RunDir(path.absolute())
    config = run.config()
    stop = StopRequest()
    timeout = config.cluster.stall_seconds + COLLECTIVE_TIMEOUT_MARGIN_SECONDS
    try:
        world = start_world(config.cluster.device, timeout, stop)
    except StoppedWaiting as e:
        print(f"{config.cell}: interrupted: {e}; the same command starts again", file=sys.stderr, flush=True)
        # A launcher sends SIGTERM to the ranks that wait for one that failed: its exit code is the one that counts.
        return exitcodes.FAILED if e.signal == "SIGTERM" else exitcodes.REQUEUE
    attempt = Attempt(run, config.cell, world)
    try:
        with Watchdog(world, config.cluster.stall_seconds, attempt.fail) as watchdog, ExitStack() as stack:
            try:
                together(world, lambda: stack.enter_context(run.lock()) if world.is_main else None)
                # A result that was edited by hand is not trained over.
                together(world, lambda: run.result() if world.is_main else None)
                if world.broadcast(run.status()) in FINISHED:
                    if world.is_main:
                        print(f"{config.cell}: finished before; remove {run.path} to train it again", flush=True)
                    return exitcodes.OK
                attempt.begin(stack)
                code = _train(run, config, world, stop, attempt, stack)
                world.gather(None)  # nobody leaves before rank 0 has written the result: an exit may end the whole job
            except BaseException as e:
                attempt.fail_with(e, watchdog)
                raise
            return code
    finally:
        world.close()


def _train(run: RunDir, config: RunConfig, world: World, stop: StopRequest, attempt: Attempt, stack: ExitStack) -> int:
    """Trains to an end that all ranks come to, records it and returns its exit code."""
    trainer, notes = _build(run, config, world)
    if attempt.display is not None:
        wandb_copy = SyncProcess(run, config)
        stack.callback(wandb_copy.close)
        for note in [*notes, *filter(None, [wandb_copy.problem])]:
            attempt.display.note(note)
    try:
        evaluation = trainer.fit(stop, attempt.display.show if attempt.display else lambda record: None)
        final = trainer.final_figures(evaluation)
    except Diverged as e:
        if world.is_main:
            run.write_result(
                {
                    "status": "diverged",
                    "reason": str(e),
                    "step": trainer.position.step,
                    "epoch": -(-trainer.position.step // trainer.task.steps_per_epoch) or 1,
                    "config_hash": config_hash(config),
                    "fingerprint": trainer.task.fingerprint,
                }
            )
        attempt.end("diverged", f"{e}; lower optimizer.lr or look at the data")
        return exitcodes.DIVERGED
    except Interrupted as e:
        attempt.end("interrupted", f"{e}; the same command again goes on from there")
        return exitcodes.REQUEUE
    if world.is_main:
        if evaluation.correct is not None:
            run.write_correct(evaluation.correct)
        run.write_result(_result(run, config, world, trainer, evaluation) | final)
    attempt.end("done", f"{trainer.task.sentence(final)}, {duration(trainer.position.seconds)} of training")
    return exitcodes.OK


def _build(run: RunDir, config: RunConfig, world: World) -> tuple[Trainer, list[str]]:
    """The parts of a run at its last checkpoint, and what there is to say about how it was restored."""
    if config.cluster.threads_per_rank:
        torch.set_num_threads(config.cluster.threads_per_rank)
    if world.device.type == "cuda":
        torch.backends.cudnn.benchmark = not config.train.deterministic  # shapes do not change from step to step
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
        torch.use_deterministic_algorithms(True)
    together(world, lambda: _check_host(config, world))
    task = together(world, lambda: _task(config, world))
    model = task.build_model().to(world.device)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = together(
        world,
        lambda: build_optimizer(
            config.optimizer.name,
            model,
            lr=config.optimizer.lr * config.scale.lr_factor,
            weight_decay=config.optimizer.weight_decay,
            hyper=config.optimizer.hyper,
            steps_per_epoch=task.steps_per_epoch,
            example_input=task.example_input().to(world.device),
            decay_norm_and_bias=config.train.decay_norm_and_bias,
        ),
    )
    trainer = Trainer(config, run, world, task, model, optimizer)
    # Rank 0 chooses, so that all ranks load the same file.
    newest, notes = world.broadcast(find_newest(run.checkpoints) if world.is_main else None)
    if newest is None:
        hosts = ", ".join(sorted(set(world.hosts)))
        start = f"{count_parameters(model):,} parameters, {world.world_size} ranks on {hosts} ({world.device.type})"
        return trainer, [*notes, f"starting, {start}"]
    state = together(world, lambda: load(newest))
    together(world, lambda: _check_checkpoint(run, config, task, state))
    trainer.restore(state)
    return trainer, [*notes, f"going on from step {trainer.position.step} of {trainer.total_steps}"]


def _task(config: RunConfig, world: World) -> Task:
    return LanguageTask(config, world) if isinstance(config.data, TextConfig) else ImageTask(config, world)


def _check_host(config: RunConfig, world: World) -> None:
    """Raises UserError where this host or the number of ranks cannot carry the config."""
    host, batch = world.hosts[world.rank], config.scale.global_batch_size
    if batch % world.world_size:
        raise UserError(
            f"scale.global_batch_size={batch}: {world.world_size} ranks were started, which do not divide it; start "
            f"as many as the config says (cluster.nodes * cluster.ranks_per_node={config.cluster.world_size})"
        )
    if isinstance(config.data, TextConfig):
        return
    cpus = len(os.sched_getaffinity(0))
    if config.data.workers > cpus:
        raise UserError(
            f"data.workers={config.data.workers}: rank {world.rank} on {host} may use {cpus} CPUs; lower it, or on "
            "Slurm raise cluster.cpus_per_rank"
        )
    if config.data.backend == "folder":  # its worker processes hand batches over in shared memory, two each ahead
        needed = 2 * config.data.workers * 3 * config.data.train_crop**2 * batch // world.world_size
        free = shutil.disk_usage("/dev/shm").free
        if free < needed:
            raise UserError(
                f"/dev/shm on {host}: {free / 1e6:.1f} MB free, data.backend=folder needs {needed / 1e6:.1f} MB a "
                "rank; enlarge it (docker: --shm-size), lower data.workers, or use data.backend=ffcv"
            )


def _check_checkpoint(run: RunDir, config: RunConfig, task: Task, state: dict[str, Any]) -> None:
    mine = json.loads(json.dumps(identity(config)))
    differing = [k for k in sorted({*mine, *state["identity"]}) if mine.get(k) != state["identity"].get(k)]
    if differing:
        raise UserError(
            f"{run.checkpoints}: made with other settings of {', '.join(differing)}; "
            "restore config.yaml, or remove the run and plan it again"
        )
    prints = {split: f["content_hash"] for split, f in task.fingerprint.items()}
    if state["data"] != prints:
        place = config.data.root if isinstance(config.data, TextConfig) else config.data.beton_dir
        raise UserError(
            f"{run.path}: the data in {place} changed since this run began; "
            "put the old files back, or remove the run and plan it again"
        )


def _result(run: RunDir, config: RunConfig, world: World, trainer: Trainer, evaluation: Evaluation) -> dict[str, Any]:
    position, attempts = trainer.position, run.attempts()
    rate = f"{trainer.task.UNIT}_per_s"
    rates = [m[rate] for m in run.metrics() if m["split"] == "train"]
    cuda = world.device.type == "cuda"
    return {
        "status": "done",
        "epochs": config.scale.epochs,
        "steps": position.step,
        "val_loss": evaluation.loss,
        "train_loss": position.train_loss,
        "best_epoch": position.best_epoch,
        "parameters": count_parameters(trainer.model),
        "config_hash": config_hash(config),
        "fingerprint": trainer.task.fingerprint,
        "evaluation": trainer.task.describe_evaluation(),
        "world_size": world.world_size,
        "device": attempts[-1]["device"],
        "seconds": position.seconds,
        "gpu_hours": position.seconds / 3600 * world.world_size if cuda else None,
        rate: statistics.median(rates),
        "commit": attempts[-1]["commit"],
        "dirty": attempts[-1]["dirty"],
    }
