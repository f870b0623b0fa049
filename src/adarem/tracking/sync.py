"""Copies one run directory to Weights & Biases, from a process of its own.

The run directory is the record and wandb a copy, made by a child process that reads what training writes. So a wandb
that fails, hangs or cannot be reached costs the copy and no step of training. An offline run starts from the first
record each time, so that the newest one under ``RUN_DIR/wandb`` is complete.
"""

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from adarem.run import streams
from adarem.run.config import RunConfig
from adarem.run.credentials import wandb_entity, wandb_project
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.files import open_file
from adarem.run.records import count
from adarem.tracking.connection import Mode, own_environment, wandb_mode
from adarem.tracking.naming import describe, network_key, run_id
from adarem.tracking.records import Row, define_metrics, live_values, rows, summary, watched_row

if TYPE_CHECKING:
    import wandb

_POLL_SECONDS = 3.0
_FINISH_SECONDS = 30.0


class SyncProcess:
    """The child process, as rank 0 holds it."""

    def __init__(self, run: RunDir, config: RunConfig) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.problem: str | None = None  # why nothing is sent, in one line
        if config.wandb.mode == "disabled":
            return
        try:
            for name in ("wandb", "wandb.log"):
                if (run.path / name).is_symlink():
                    raise UserError(f"{run.path / name}: a link, which is not followed; remove it")
            with open(open_file(run.path / "wandb.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "adarem.tracking.sync", str(run.path)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for training; this process ends when its input does
                )
        except (OSError, UserError) as e:  # a full disk, too many processes: it costs the copy and not the run
            self.problem = f"wandb: not copied there ({e}); `adarem wandb replay` does it later"

    def close(self) -> None:
        """Waits while the process sends what is left, at most _FINISH_SECONDS; then kills it."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_FINISH_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@own_environment()
def sync(run: RunDir, *, follow: bool, mode: Mode | None = None) -> None:
    """Sends what the run directory holds to wandb.

    Args:
        follow: go on with what training writes, until standard input ends; False: send what is there, once.
        mode: in place of the config's.

    Raises:
        UserError: config.yaml or result.json is damaged. In the latter case the curves have been sent.
    """
    config = run.config()
    import wandb

    shown = describe(run, config)
    session = wandb.init(
        project=wandb_project(config),
        entity=wandb_entity(config),
        id=run_id(run, config),
        name=shown.name,
        group=shown.group,
        job_type="train",
        tags=shown.tags,
        notes=shown.notes,
        config=shown.config,
        dir=str(run.path),
        mode=mode or wandb_mode(config),
        resume="allow",
        # What wandb records by itself, commit, machine and load, is true only of the process that trains.
        settings=wandb.Settings(
            silent=True, console="off", x_disable_stats=not follow, x_disable_meta=not follow, disable_git=not follow
        ),
    )
    finished = False
    try:
        define_metrics(session, network_key(config))
        _send(session, run, config, follow)
        seen = describe(run, config)  # with what the run recorded of its data since it began
        if seen != shown:
            session.tags, session.notes = seen.tags, seen.notes or ""
        result = run.result()
        session.summary.update(summary(run, config, result))
        finished = result is not None
    finally:
        session.finish(exit_code=0 if finished else 1)


def _send(session: "wandb.Run", run: RunDir, config: RunConfig, follow: bool) -> None:
    """Logs every record of the run and, while training goes on, its progress between records."""
    sent: set[str] = set()
    newest_step = session.step  # above 0 for an online run that goes on
    ended = not follow
    steps = _StepRows(run, config.train.watch_every)
    while True:
        # Read before the records: then every record below its step is there, and wandb drops earlier steps.
        progress = run.progress()
        found = rows(run, config)
        last = max((row.step for row in found), default=-1)
        for row in sorted([*found, *steps.due(last, everything=ended)], key=lambda row: row.step):
            last = max(last, row.step)
            key = json.dumps([row.step, row.values], sort_keys=True)
            if key not in sent and row.step >= newest_step:
                session.log(dict(row.values), step=row.step)
            sent.add(key)
        step = count(progress or {}, "step")
        if progress and step is not None and not ended and (live := min(step, steps.complete_below - 1)) > last:
            session.log(live_values(progress), step=live)
        if ended:
            return
        ended = _input_ended(_POLL_SECONDS)


class _StepRows:
    """The rows of steps.jsonl, each once and in time: wandb drops what is logged below the newest step."""

    def __init__(self, run: RunDir, every: int) -> None:
        self._run, self._every = run, every
        self._read = 0  # bytes of the file
        self._newest = 0  # step that was read
        self._waiting: list[Row] = []

    def due(self, recorded: int, *, everything: bool) -> list[Row]:
        """The rows that may be sent now, none of them twice.

        The end of an epoch may have been recorded since the records were read, and belongs before later steps. So what
        is new waits for the next call, but for the steps up to ``recorded``, the last record's.
        """
        new = self._run.new_steps(self._read)
        self._read = new.end
        rows = [row for record in new.records if (row := watched_row(record)) is not None]
        self._newest = max([self._newest, *(row.step for row in rows)])
        due = self._waiting + [row for row in rows if everything or row.step <= recorded]
        self._waiting = [row for row in rows if not everything and row.step > recorded]
        return due

    @property
    def complete_below(self) -> int:
        """No row that comes later has a step below this one."""
        if not self._every:
            return sys.maxsize
        return self._waiting[0].step if self._waiting else (self._newest // self._every + 1) * self._every


def _input_ended(seconds: float) -> bool:
    """Waits; True once rank 0 has closed the pipe, on purpose or by dying."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


if __name__ == "__main__":
    streams.prepare()
    try:
        sync(RunDir(Path(sys.argv[1])), follow=True)
    except UserError as error:
        sys.exit(str(error))
