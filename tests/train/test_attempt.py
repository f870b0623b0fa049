"""What ranks tell each other and people when something goes wrong; ranks are stand-ins."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adarem.cli import main
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.files import append_line, write_atomically
from adarem.train.console import RunConsole
from adarem.train.distributed import watchdog
from adarem.train.distributed.context import RankContext, raise_on_all_ranks
from adarem.train.distributed.heartbeat import Activity


class Ranks(RankContext):
    """A process group in which another rank reports ``theirs``."""

    theirs: UserError | None = None

    def gather(self, value: object) -> list[object]:
        return [value, self.theirs] if self.rank == 0 else [self.theirs, value]


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("no such folder"), 2), (UserError("another process", retryable=True), 1)]
)
def test_every_rank_ends_with_the_code_of_the_one_that_failed(
    error: UserError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """srun takes the highest of all: a mishap that another rank reports as a mistake would never start again."""
    told = []
    for rank in (0, 1):
        context = Ranks(rank, 2, rank, torch.device("cpu"), ("n1", "n2"))
        object.__setattr__(context, "theirs", error)
        monkeypatch.setattr(
            "adarem.train.train.train", lambda path, context=context: raise_on_all_ranks(context, lambda: None)
        )
        assert main(["train", "anywhere"]) == code
        told.append(capsys.readouterr().err)
    assert told == [f"adarem train: rank 1 on n2: {error}\n", ""]
    with pytest.raises(UserError) as raised:
        raise_on_all_ranks(context, lambda: None)
    assert raised.value.reported and raised.value.retryable is (code == 1)


@pytest.mark.parametrize("write", [write_atomically, append_line])
def test_a_sick_disk_is_a_mishap_and_a_full_one_a_mistake(
    write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"text": "x"} if write is append_line else "x"
    for number, retryable in ((errno.EIO, True), (errno.ESTALE, True), (errno.ENOSPC, False)):

        def fail(_handle: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(UserError, match="cannot be written") as e:
            write(tmp_path / "file", data)
        assert e.value.retryable is retryable


class Gone:
    """A terminal that was closed, or a reader that left."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def flush(self) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_an_output_that_nobody_reads_any_more_does_not_end_training(
    tiny_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tiny_run())
    monkeypatch.setattr("sys.stdout", Gone())
    with RunConsole(run, "name", None) as console:
        console.info("still there")
    assert "still there" in run.log_file.read_text()


def watching(beats: list[tuple[float, int, Activity]], now: float = 100.0) -> watchdog.Watchdog:
    """A watchdog of ranks whose last progress is so many seconds old, at a step and a place; all show life."""
    dog = watchdog.Watchdog.__new__(watchdog.Watchdog)
    dog._context = RankContext(0, len(beats), 0, torch.device("cpu"), tuple(f"n{i}" for i in range(len(beats))))
    dog._stall_seconds, dog._parent, dog._store = 10.0, None, None
    dog._ranks = [
        watchdog._RankStatus(step=step, activity=activity, published_at=now, progress_at=now - age)
        for age, step, activity in beats
    ]
    return dog


def test_ranks_that_wait_for_one_that_gets_on_do_not_stall() -> None:
    """Rank 0 alone reads a validation text; the others stand at the same place until it has."""
    assert (
        watching(
            [(0.5, 4, Activity.EVALUATING), (60.0, 4, Activity.EVALUATING), (60.0, 4, Activity.EVALUATING)]
        )._find_stall(100.0)
        is None
    )


def test_the_ranks_that_are_furthest_behind_are_named() -> None:
    line, culprits = watching(
        [(12.0, 5, Activity.TRAINING), (11.0, 4, Activity.TRAINING), (12.0, 5, Activity.TRAINING)]
    )._find_stall(100.0)
    assert line == "rank 1 on n1 stalled for 12 s after step 4, while it trains" and culprits == [1]
    assert watching([(12.0, 5, Activity.TRAINING), (9.0, 4, Activity.TRAINING)])._find_stall(100.0) is None
