"""Mirrors one run directory to Weights & Biases, from a process of its own.

The run directory is the truth and wandb a copy of it, made by a child process that reads what training writes. So a
wandb that fails, hangs or can't be reached costs the copy and never a step of training. An offline run always starts
from the first record, so that the newest one under ``RUN_DIR/wandb`` is complete.
"""

import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from adarem.run.config import RunConfig, config_hash, to_dict
from adarem.run.credentials import has_wandb_key
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.labels import shortened, table_cell
from adarem.run.sweep import read_campaign

_POLL_SECONDS = 3.0
_FINISH_SECONDS = 30.0
_LONGEST_NAME, _LONGEST_TAG = 128, 64  # characters that wandb's server takes

# Of which wandb keeps the best value beside the last.
_BEST = {
    "train/loss": "min", "val/loss": "min", "val/top1": "max", "val/top5": "max", "val/perplexity": "min",
}  # fmt: skip
_NOT_LOGGED = ("split", "step", "epoch", "time", "trajectories")  # of a record
_FINAL = (  # of result.json
    "status", "top1", "top5", "perplexity", "val_perplexity", "val_loss", "train_loss", "best_epoch", "gpu_hours",
)  # fmt: skip


class Mirror:
    """The child process, seen from rank 0."""

    def __init__(self, run: RunDir, config: RunConfig) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.problem: str | None = None  # why nothing is mirrored, in one line
        if config.wandb.mode == "disabled":
            return
        try:
            with open(run.path / "wandb.log", "ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "adarem.tracking.sync", str(run.path)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for training; the mirror ends when its input does
                )
        except OSError as e:  # disk full, no process left: it costs the copy and never the run
            self.problem = f"not mirrored to wandb ({e}); `adarem wandb replay` does it later"

    def close(self) -> None:
        """Lets the mirror send what is left, for a while; then it goes."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_FINISH_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wandb_mode(config: RunConfig) -> str:
    """online, offline or disabled: the config's word; for ``auto`` WANDB_MODE, then whether there is a key."""
    if config.wandb.mode != "auto":
        return config.wandb.mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    return "online" if has_wandb_key() else "offline"


def run_id(run: RunDir, config: RunConfig) -> str:
    """Stable over attempts, requeues and machines: the same cell of the same campaign is the same wandb run."""
    return hashlib.sha256(f"{run.path.parent.name}/{config.cell}/{config_hash(config)}".encode()).hexdigest()[:12]


def mirror(run: RunDir, *, follow: bool, mode: str | None = None) -> None:
    """Sends what the run directory holds to wandb.

    Args:
        follow: go on with what training writes, until standard input ends; False: send what is there, once.
        mode: instead of the config's: online or offline.

    Raises:
        UserError: config.yaml or result.json is damaged. In the latter case the curves have been sent.
    """
    config = run.config()
    import wandb

    session = wandb.init(
        project=config.wandb.project,
        entity=config.wandb.entity,
        id=run_id(run, config),
        **describe(run, config),
        dir=str(run.path),
        mode=mode or wandb_mode(config),
        resume="allow",
        # What wandb finds out by itself, commit, machine and load, is true of the training process alone.
        settings=wandb.Settings(
            silent=True, console="off", x_disable_stats=not follow, x_disable_meta=not follow, disable_git=not follow
        ),
    )
    finished = False
    try:
        _define_metrics(session, network_key(config))
        _send(session, run, config, follow)
        result = run.result()
        session.summary.update(_summary(run, config, result))
        finished = result is not None
    finally:
        session.finish(exit_code=0 if finished else 1)


def describe(run: RunDir, config: RunConfig) -> dict[str, Any]:
    """How wandb shows the run: arguments of ``wandb.init``.

    The group is the table's cell, so that runs grouped by it are averaged over seeds.
    """
    campaign = run.path.parent.name
    try:
        grid = read_campaign(run.path.parent)
    except UserError:
        grid = {}  # settings then stand in words, whatever the grid calls them
    cell, seed = table_cell(config, grid), f" · seed {config.seed}"
    tags = [campaign, config.model.label, config.optimizer.label, config.data.label]
    return {
        "name": shortened(cell, _LONGEST_NAME - len(seed)) + seed,
        "group": shown_name(f"{campaign} · {cell}"),
        "job_type": "train",
        "tags": [shown_tag(t) for t in tags] + (["rehearsal"] if config.rehearsal else []),
        "notes": f"REHEARSAL: {config.rehearsal}" if config.rehearsal else None,
        "config": {**to_dict(config), "campaign": campaign, "table_cell": cell},
    }


def shown_name(text: str) -> str:
    """A name or group of the length that wandb takes."""
    return shortened(text, _LONGEST_NAME)


def shown_tag(text: str) -> str:
    """A tag of the length that wandb takes."""
    return shortened(text, _LONGEST_TAG)


def network_key(config: RunConfig) -> str:
    """What the keys of a network's own curves begin with: ``MobileNetV2_0_5``.

    A workspace's panel shows every run that has its key, so rows a network need keys a network. Letters, digits and
    underscores are what wandb sorts and filters by.
    """
    return re.sub(r"\W+", "_", config.model.label)


def _define_metrics(session: Any, network: str) -> None:
    session.define_metric("epoch")
    for axis in ("hours", "device_hours"):
        session.define_metric(axis, hidden=True)
    for pattern in ("train/*", "val/*", "oscillation/*"):
        session.define_metric(pattern, step_metric="epoch", summary="last")
    for name, summary in _BEST.items():
        session.define_metric(name, step_metric="epoch", summary=f"{summary},last")
    session.define_metric(f"{network}/*", step_metric="epoch", summary="none")  # the same figures once more
    session.define_metric("live/*", summary="none")


def _send(session: Any, run: RunDir, config: RunConfig, follow: bool) -> None:
    """Logs every record of the run and, while training goes on, where it is between them."""
    sent: set[str] = set()
    newest_step = session.step  # of an online run that goes on
    ended = False
    while True:
        # Before the records: all of those below its step are then there, and wandb takes no step back.
        progress = run.progress()
        last = -1
        for last, row in rows(run, config):
            key = json.dumps([last, row], sort_keys=True)
            if key not in sent and last >= newest_step:
                session.log(row, step=last)
            sent.add(key)
        if progress and follow and not ended and progress["step"] > last:
            shown = {f"live/{k}": progress.get(k) for k in ("loss", "images_per_s", "tokens_per_s")}
            session.log({k: v for k, v in shown.items() if v is not None}, step=progress["step"])
        if ended or not follow:
            return
        ended = _input_ended(_POLL_SECONDS)


def rows(run: RunDir, config: RunConfig) -> list[tuple[int, dict[str, Any]]]:
    """(step, values) of every record of the run in order of step, under the keys that wandb has them by.

    ``hours`` and ``device_hours`` are those of training, evaluation and checkpoints so far, as in the report, whenever
    and wherever they are sent to wandb.
    """
    oscillation = [r | {"split": "oscillation"} for r in run.oscillation()]
    network, ranks = network_key(config), config.cluster.world_size
    hours = device_hours = 0.0
    found = []
    for record in sorted(run.metrics() + oscillation, key=lambda r: r["step"]):
        split, ranks = record["split"], record.get("world_size") or ranks
        spent = sum(record.get(k) or 0.0 for k in ("seconds_train", "seconds_checkpoint", "seconds_eval")) / 3600
        hours, device_hours = hours + spent, device_hours + spent * ranks
        values = {f"{split}/{k}": v for k, v in record.items() if k not in _NOT_LOGGED and v is not None}
        own = {
            "train_loss": values.get("train/loss"),
            "test_error": 100.0 - values["val/top1"] if "val/top1" in values else None,
            "val_perplexity": values.get("val/perplexity"),
        }
        values |= {f"{network}/{k}": v for k, v in own.items() if v is not None}
        axes = {"epoch": record["epoch"], "hours": hours, "device_hours": device_hours}
        found.append((record["step"], axes | values))
    return found


def _summary(run: RunDir, config: RunConfig, result: dict[str, Any] | None) -> dict[str, Any]:
    """The run's figures in one row: final ones once it is finished, before that what there is so far."""
    records, windows = run.metrics(), run.oscillation()
    train, val = ([r for r in records if r["split"] == split] for split in ("train", "val"))
    attempt = (run.attempts() or [{}])[-1]

    def of(kind: list[dict[str, Any]], key: str) -> list[float]:
        return [r[key] for r in kind if r.get(key) is not None]

    waited = sum((r.get("data_wait") or 0.0) * (r.get("seconds_train") or 0.0) for r in train)
    figures = {
        "status": attempt.get("why") or run.status(),
        "commit": attempt.get("commit"),
        "best_top1": max(of(val, "top1"), default=None),
        "best_top5": max(of(val, "top5"), default=None),
        "best_val_perplexity": min(of(val, "perplexity"), default=None),
        "q_mean": next(reversed(of(windows, "q_mean")), None),
        "q_median_with_gradient": next(reversed(of(windows, "q_median_with_gradient")), None),
        "images_per_s": statistics.median(of(train, "images_per_s") or [0.0]) or None,
        "tokens_per_s": statistics.median(of(train, "tokens_per_s") or [0.0]) or None,
        "data_wait": waited / sum(of(train, "seconds_train")) if of(train, "seconds_train") else None,
        "base_lr": config.optimizer.lr * config.scale.lr_factor,
        "last_lr": next(reversed(of(train, "lr")), None),
    } | {k: v for k, v in (result or {}).items() if k in _FINAL}
    return {k: v for k, v in figures.items() if v is not None}


def _input_ended(seconds: float) -> bool:
    """Waits; True once rank 0 has closed the pipe, by choice or by dying."""
    import select

    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


if __name__ == "__main__":
    try:
        mirror(RunDir(Path(sys.argv[1])), follow=True)
    except UserError as error:
        sys.exit(str(error))
