"""Which ranks the watchdog blames, of given heartbeats. With real processes: tests/faults/test_ranks.py."""

import torch

from adarem.train.distributed import watchdog
from adarem.train.distributed.context import RankContext
from adarem.train.distributed.heartbeat import Activity


def watching(beats: list[tuple[float, int, Activity]], now: float = 100.0) -> watchdog.Watchdog:
    """A watchdog of ranks by the age of their last progress in seconds, their step and activity; all are alive."""
    dog = watchdog.Watchdog.__new__(watchdog.Watchdog)
    dog._context = RankContext(0, len(beats), 0, torch.device("cpu"), tuple(f"n{i}" for i in range(len(beats))))
    dog._stall_seconds, dog._parent, dog._board = 10.0, None, None
    dog._ranks = [
        watchdog._RankStatus(step=step, activity=activity, published_at=now, progress_at=now - age)
        for age, step, activity in beats
    ]
    return dog


def test_ranks_that_wait_for_one_that_makes_progress_do_not_stall() -> None:
    """Rank 0 alone reads a validation text; the others wait in the same activity."""
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
