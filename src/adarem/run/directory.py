"""The run directory: the one contract between planning, training and reporting.

This is the only module that knows the file names inside a run. Standard library and yaml only. A run's status is
derived from its files here and stored nowhere.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import socket
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from adarem.run import locks
from adarem.run.config import DataConfig, RunConfig, from_dict, to_dict
from adarem.run.errors import RunRemoved, UserError
from adarem.run.files import SAFE_YAML as SAFE_YAML
from adarem.run.files import (
    Lines,
    NewLines,
    append_line,
    check_own_folder,
    make_durable,
    read_file,
    read_json,
    read_lines,
    read_new_lines,
    read_yaml,
    write_atomically,
)
from adarem.run.identity import config_hash, differing_keys
from adarem.run.records import JsonRecord, count, number, text

if TYPE_CHECKING:
    import numpy as np

# paused: at a rung of a search (``adarem.run.halving``), which also knows of a run that it has stopped there for good.
Status = Literal["planned", "running", "interrupted", "paused", "stopped", "failed", "diverged", "done"]
FINISHED: tuple[Status, ...] = ("done", "diverged")

# A checkpoint's file: the steps before it, and the first 16 digits of its SHA-256.
CHECKPOINT_NAME = re.compile(r"step-(\d{9})-([0-9a-f]{16})\.pt")

# A run whose progress file is older than this and whose lock nobody holds is not running any more.
STALE_SECONDS = 180.0
_LONGEST_CORRECT = 1 << 28  # bytes of correct.npz, unpacked: a bit an image


@dataclass(frozen=True)
class RunDir:
    """One run's directory, ``runs/<sweep>/<run>/``."""

    path: Path

    # File names. Only this class spells them.
    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def attempts_file(self) -> Path:
        return self.path / "attempts.jsonl"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def oscillation_file(self) -> Path:
        return self.path / "oscillation.jsonl"

    @property
    def steps_file(self) -> Path:
        return self.path / "steps.jsonl"

    @property
    def progress_file(self) -> Path:
        return self.path / "progress.json"

    @property
    def result_file(self) -> Path:
        return self.path / "result.json"

    @property
    def correct_file(self) -> Path:
        return self.path / "correct.npz"

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    @property
    def claim_file(self) -> Path:
        """Held by the launcher on this machine that has started the run, and by its processes."""
        return self.path / "claim"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpointed_steps(self) -> int:
        """Optimizer steps up to the newest checkpoint, by its name; 0 without one."""
        found = [CHECKPOINT_NAME.fullmatch(path.name) for path in self.checkpoints.glob("step-*.pt")]
        return max((int(match[1]) for match in found if match), default=0)

    # config.yaml
    def freeze(self, config: RunConfig) -> bool:
        """Writes config.yaml; True if the run is new. Planning the same thing twice changes nothing.

        Raises:
            UserError: the directory holds another experiment under the same name.
        """
        self.check(config)
        written = "# Written by `adarem plan`. `adarem train` reads nothing else.\n" + yaml.safe_dump(
            to_dict(config), sort_keys=False, allow_unicode=True
        )
        if not self.config_file.exists():
            write_atomically(self.config_file, written)
            return True
        # Where only circumstances differ, another partition, another place of the data, the run goes on with the new
        # ones. A finished run's config says with which it was made.
        if self.config() != config and self.status() not in FINISHED:
            write_atomically(self.config_file, written)
        return False

    def check(self, config: RunConfig) -> None:
        """Raises UserError when ``freeze`` of this config would be refused; writes nothing."""
        if not self.config_file.exists():
            found = {p.name for p in self.path.iterdir()} if self.path.exists() else set()
            # Another planner may be writing the same file at this moment.
            # So may a process that trained when the rest was removed have left its progress.
            left = {p.name for p in (self.config_file, self.lock_file, self.claim_file, self.progress_file)}
            if any(name not in left and not name.endswith(".partial") for name in found):
                raise UserError(f"{self.path}: holds files but no config.yaml; move it away or choose another runs_dir")
            return
        old = self.config()
        if config_hash(old) != config_hash(config):
            if isinstance(old.data, DataConfig) and isinstance(config.data, DataConfig):
                check_same_images(self.config_file, old.data, config.data)
            raise UserError(
                f"{self.config_file}: planned before with other settings ({'; '.join(differing_keys(old, config))}); "
                "use another runs_dir, or remove that run"
            )

    def config(self) -> RunConfig:
        """Raises UserError when config.yaml is missing, damaged or of another version."""
        absent = f"{self.path}: no config.yaml there, so no run; `adarem plan` makes runs"
        raw = read_yaml(self.config_file, "remove the run and plan it again", absent=absent)
        try:
            return from_dict(raw)
        except UserError as e:
            raise UserError(f"{self.config_file}: {e}") from None

    # attempts.jsonl: a line when an attempt starts and a line when it ends, joined by the attempt's number
    def start_attempt(self, record: JsonRecord) -> int:
        attempt = len(self.attempts()) + 1
        append_line(self.attempts_file, {"attempt": attempt, "start": time.time(), **record})
        return attempt

    def end_attempt(self, attempt: int, why: str, detail: str = "") -> None:
        """``why``: done, diverged, interrupted, paused or failed; ``detail``: one line for people."""
        append_line(self.attempts_file, {"attempt": attempt, "end": time.time(), "why": why, "detail": detail})

    def attempts(self) -> list[dict[str, object]]:
        """One record per attempt, in order; without the key ``end`` where the attempt recorded no end."""
        joined: dict[int, dict[str, object]] = {}
        for record in read_lines(self.attempts_file).records:
            if (attempt := count(record, "attempt")) is not None:
                joined.setdefault(attempt, {}).update(record)
        return [joined[k] for k in sorted(joined)]

    # metrics.jsonl
    def append_metrics(self, record: JsonRecord) -> None:
        """``record`` needs ``epoch`` (epochs completed, 1 to epochs) and ``split`` (train or val)."""
        assert {"epoch", "split"} <= record.keys()
        append_line(self.metrics_file, record)

    def metrics(self) -> list[dict[str, object]]:
        """One record per (epoch, split), the last written; in order of epoch."""
        return self.read_metrics().records

    def read_metrics(self) -> Lines:
        """``metrics``, and the number of damaged lines."""
        lines = read_lines(self.metrics_file)
        kept = [r for r in lines.records if isinstance(r.get("split"), str)]
        return _newest(Lines(kept, lines.damaged + len(lines.records) - len(kept)))

    def epochs(self) -> int:
        """How many it has completed and recorded."""
        return max((count(r, "epoch") or 0 for r in self.metrics() if r["split"] == "train"), default=0)

    def append_oscillation(self, record: JsonRecord) -> None:
        """``record`` needs ``epoch`` (epochs completed)."""
        assert "epoch" in record
        append_line(self.oscillation_file, record)

    def oscillation(self) -> list[dict[str, object]]:
        """One record per window, the last written for its epoch; in order of epoch."""
        return self.read_oscillation().records

    def read_oscillation(self) -> Lines:
        """``oscillation``, and the number of damaged lines."""
        return _newest(read_lines(self.oscillation_file))

    # steps.jsonl: what the optimizer does, every so many steps
    def append_step(self, record: JsonRecord) -> None:
        """``record`` needs ``step`` (optimizer steps completed), larger than before. Not yet safe from a power cut."""
        assert "step" in record
        append_line(self.steps_file, record, durable=False)

    def sync_steps(self) -> None:
        """What ``append_step`` wrote survives a power cut from here on."""
        make_durable(self.steps_file)

    def read_steps(self, at_most: int | None = None) -> Lines:
        """One record per watched step, thinned to ``at_most``; and the number of damaged lines among them."""
        return read_lines(self.steps_file, at_most)

    def new_steps(self, begin: int) -> NewLines:
        """The records behind the first ``begin`` bytes."""
        return read_new_lines(self.steps_file, begin)

    def keep_steps(self, last: int) -> None:
        """Removes the records after step ``last``, to which training goes back, and lines that are damaged."""
        if not os.path.lexists(self.steps_file):
            return
        old = read_file(self.steps_file)
        new = b"".join(line for line in old.splitlines(keepends=True) if _step_of(line) in range(1, last + 1))
        if new != old:
            write_atomically(self.steps_file, new)

    def damaged_lines(self) -> int:
        """Damaged lines of the .jsonl files; reported, never dropped in silence."""
        return (
            self.read_metrics().damaged
            + self.read_oscillation().damaged
            + self.read_steps().damaged
            + self.damaged_attempts()
        )

    def damaged_attempts(self) -> int:
        return read_lines(self.attempts_file).damaged

    # progress.json: where a live run is, rewritten every few seconds
    def write_progress(self, record: JsonRecord) -> None:
        """Raises RunRemoved as ``check_there``."""
        self.check_there()
        write_atomically(self.progress_file, json.dumps({"time": time.time(), "host": socket.gethostname(), **record}))

    def progress(self) -> dict[str, object] | None:
        try:
            return read_json(self.progress_file)
        except UserError:
            return None  # being replaced, or cut by a full disk; the next write replaces it

    def check_there(self) -> None:
        """Raises RunRemoved where the directory is gone, or none of a run any more: it may have been removed while a
        process wrote into it, which then leaves a part."""
        if not self.config_file.exists():
            raise self._removed()

    def _removed(self) -> RunRemoved:
        return RunRemoved(f"{self.path}: removed while it trained, so it ends; plan it again to train it anew")

    def _write(self, file: Path, data: str | bytes) -> None:
        """Writes a file of this run, and no directory in place of one that was removed."""
        if not self.path.is_dir():
            raise self._removed()
        write_atomically(file, data)

    # result.json
    def write_result(self, record: JsonRecord) -> None:
        assert record["status"] in FINISHED
        sealed = {**record, "checksum": _checksum(record)}
        self._write(self.result_file, json.dumps(sealed, indent=1, sort_keys=True, allow_nan=False) + "\n")

    def result(self) -> dict[str, object] | None:
        """The finished run's record, or None. Raises UserError for a file that is damaged or was edited."""
        record = read_json(self.result_file)
        if record is None:
            return None
        checksum = record.pop("checksum", None)
        if checksum != _checksum(record):
            reason = "checksum differs" if checksum else "no checksum"
            raise UserError(
                f"{self.result_file}: not as training wrote it ({reason}); restore it, or remove it: the same launch "
                "then makes it again from the last checkpoint"
            )
        return record

    # correct.npz
    def write_correct(self, correct: Mapping[str, "np.ndarray | Sequence[bool]"]) -> None:
        """Keeps which images were right, one bit each, in dataset order, under the names given (top1, top5)."""
        import numpy as np

        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: np.packbits(np.asarray(bits, dtype=bool)) for name, bits in correct.items()}
        np.savez(buffer, n=len(next(iter(correct.values()))), **arrays)
        self._write(self.correct_file, buffer.getvalue())

    def correct(self) -> dict[str, "np.ndarray"] | None:
        """The bool arrays that ``write_correct`` kept, or None before the final evaluation."""
        import numpy as np

        try:
            data = io.BytesIO(read_file(self.correct_file))
            if sum(member.file_size for member in zipfile.ZipFile(data).infolist()) > _LONGEST_CORRECT:
                raise ValueError("unpacks to more than any data set has")
            with np.load(data, allow_pickle=False) as f:
                packed = {k: f[k] for k in f.files}
            n = int(packed.pop("n"))
            if any(bits.shape != ((n + 7) // 8,) for bits in packed.values()):
                raise ValueError("another number of bits than it says")
            return {k: np.unpackbits(bits, count=n).astype(bool) for k, bits in packed.items()}
        except FileNotFoundError:
            return None
        except UserError:
            raise
        except (OSError, ValueError, TypeError, AttributeError, KeyError, EOFError, zipfile.BadZipFile, MemoryError):
            raise UserError(
                f"{self.correct_file}: damaged; remove it and result.json, and train the run again"
            ) from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held by the one process that may write here (``locks.hold``). Removes partial files of killed processes."""
        check_own_folder(self.checkpoints)
        with locks.hold(self.lock_file):
            for partial in (*self.path.glob(".*.partial"), *self.checkpoints.glob(".*.partial")):
                if not partial.name.startswith(f".{self.config_file.name}."):  # which a planner may be writing
                    partial.unlink(missing_ok=True)
            yield

    def locked(self) -> bool:
        return locks.held(self.lock_file)

    def status(self) -> Status:
        """Derived, never stored. A damaged or edited result.json counts as failed."""
        try:
            result = self.result()
        except UserError:
            return "failed"
        if result is not None:
            return "diverged" if result.get("status") == "diverged" else "done"
        attempts = self.attempts()
        if not attempts:
            return "planned"
        last = attempts[-1]
        if "end" in last:
            why = last.get("why")
            return "interrupted" if why == "interrupted" else "paused" if why == "paused" else "failed"
        progress = self.progress() or {}
        newest = max(number(last, "start") or 0.0, number(progress, "time") or 0.0)
        if self.locked() or abs(time.time() - newest) < STALE_SECONDS and last.get("host") != socket.gethostname():
            return "running"
        return "failed"  # it began, holds no lock and recorded no end: killed


def check_same_images(config_file: Path, old: DataConfig, new: DataConfig) -> None:
    """Raises UserError where plan found other images in a folder than it had when it wrote the config."""
    if None not in (old.listing, new.listing) and old.listing != new.listing:
        raise UserError(
            f"{config_file}: planned on other images ({old.root}, {old.expected_train:,} + {old.expected_val:,}; now "
            f"{new.root}, {new.expected_train:,} + {new.expected_val:,}); for these give another data.name or "
            "runs_dir, or put the old ones back"
        )


def _newest(lines: Lines) -> Lines:
    """The last record of each epoch and split, in this order; one without an epoch counts as damaged."""
    last: dict[tuple[int, str], dict[str, object]] = {}
    damaged = lines.damaged
    for record in lines.records:
        if (epoch := count(record, "epoch")) is None:
            damaged += 1
        else:
            last[epoch, text(record, "split")] = record
    return Lines([last[place] for place in sorted(last)], damaged)


def _step_of(line: bytes) -> int | None:
    """Of a line of steps.jsonl; None of one that is damaged."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return count(record, "step") if isinstance(record, dict) else None


def _checksum(record: JsonRecord) -> str:
    """Shows that a record was changed by hand; no protection against forgery."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
