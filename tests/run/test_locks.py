"""Who holds a run directory's lock, and what asking for it costs others."""

import fcntl
import threading
import time
from pathlib import Path

import pytest

from adarem.run import locks
from adarem.run.errors import UserError


def test_a_look_at_the_lock_does_not_take_it_from_who_wants_it(tmp_path: Path) -> None:
    """`adarem status` looks at runs that may be about to start again."""
    lock = tmp_path / "lock"
    lock.touch()
    with open(lock) as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.3, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with locks.hold(lock):
            assert locks.held(lock)
    assert not locks.held(lock)


@pytest.mark.parametrize(("job", "retryable"), [(None, False), ("7", True)])
def test_a_lock_that_stays_held(
    job: str | None, retryable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a job it may be what Slurm lost sight of: worth another start. Elsewhere somebody started it twice."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with locks.hold(tmp_path / "lock"):
        if job:
            monkeypatch.setenv("SLURM_JOB_ID", job)
        began = time.monotonic()
        with pytest.raises(
            UserError, match=r"another process works on it \(host \S+, pid \d+\); wait until that one has ended$"
        ) as e:
            locks.hold(tmp_path / "lock", patience=0.2).__enter__()
    assert e.value.retryable is retryable and time.monotonic() - began >= 0.2
