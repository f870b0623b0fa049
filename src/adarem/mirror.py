"""Mirrors one run directory to Weights & Biases, from a process of its own.

The run directory is the truth and wandb a copy of it, made by a child process that reads what training writes. So a
wandb that fails, hangs or can't be reached costs the copy and never a step of training. An offline run always starts
from the first record, so that the newest one under ``RUN_DIR/wandb`` is complete.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from adarem.config import RunConfig, config_hash, to_dict
from adarem.errors import UserError
from adarem.rundir import RunDir

_POLL_SECONDS = 3.0
_FINISH_SECONDS = 30.0


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
                    [sys.executable, "-m", "adarem.mirror", str(run.path)],
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
    import netrc

    has_key = bool(os.environ.get("WANDB_API_KEY"))
    if not has_key:
        try:
            has_key = any("wandb" in host for host in netrc.netrc().hosts)
        except (OSError, netrc.NetrcParseError):
            has_key = False
    return "online" if has_key else "offline"


def run_id(run: RunDir, config: RunConfig) -> str:
    """Stable over attempts, requeues and machines: the same cell of the same campaign is the same wandb run."""
    return hashlib.sha256(f"{run.path.parent.name}/{config.cell}/{config_hash(config)}".encode()).hexdigest()[:12]


def mirror(run: RunDir, *, follow: bool, mode: str | None = None) -> None:
    """Sends what the run directory holds to wandb.

    Args:
        follow: go on with what training writes, until standard input ends; False: send what is there, once.
        mode: instead of the config's: online or offline.
    """
    config = run.config()
    import wandb

    session = wandb.init(
        project=config.wandb.project,
        entity=config.wandb.entity,
        id=run_id(run, config),
        name=config.cell,
        group=run.path.parent.name,
        tags=[config.grid, config.model.label, config.optimizer.label, config.data.label]
        + (["rehearsal"] if config.rehearsal else []),
        notes=f"REHEARSAL: {config.rehearsal}" if config.rehearsal else None,
        config=to_dict(config),
        dir=str(run.path),
        mode=mode or wandb_mode(config),
        resume="allow",
        settings=wandb.Settings(silent=True, x_disable_stats=False, console="off"),
    )
    session.define_metric("epoch")
    for pattern in ("train/*", "val/*", "oscillation/*"):
        session.define_metric(pattern, step_metric="epoch")
    sent: set[str] = set()
    newest_step = session.step  # of an online run that goes on
    ended = False
    while True:
        for record in _records(run):
            key = json.dumps(record, sort_keys=True)
            if key not in sent and record["step"] >= newest_step:
                _log(session, record)
            sent.add(key)
        progress = run.progress()
        if progress and not ended and progress["step"] > max((r["step"] for r in run.metrics()), default=-1):
            live = {
                f"live/{k}": progress[k]
                for k in ("loss", "images_per_s", "tokens_per_s")
                if progress.get(k) is not None
            }
            session.log(live, step=progress["step"])
        if ended or not follow:
            break
        ended = _input_ended(_POLL_SECONDS)
    result = run.result()
    if result:
        final = (
            "status",
            "top1",
            "top5",
            "perplexity",
            "val_perplexity",
            "val_loss",
            "train_loss",
            "best_top1",
            "best_epoch",
            "images_per_s",
            "tokens_per_s",
            "gpu_hours",
        )
        session.summary.update({k: result[k] for k in final if result.get(k) is not None})
    session.finish(exit_code=0 if result else 1)


def _records(run: RunDir) -> list[dict[str, Any]]:
    """Every record of the run in order of step, as wandb needs them."""
    oscillation = [{k: v for k, v in r.items() if k != "trajectories"} for r in run.oscillation()]
    return sorted(run.metrics() + [r | {"split": "oscillation"} for r in oscillation], key=lambda r: r["step"])


def _log(session: Any, record: dict[str, Any]) -> None:
    split = record["split"]
    skip = ("split", "step", "epoch", "time")
    values = {f"{split}/{k}": v for k, v in record.items() if k not in skip and v is not None}
    session.log({"epoch": record["epoch"], **values}, step=record["step"])


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
