"""Where a rank's training loop is. The loop writes it, the watchdog's thread reads it."""

from enum import IntEnum
from typing import NamedTuple


class Activity(IntEnum):
    """What a training loop does, in the order in which a step does it: the smaller one is further behind."""

    STARTING = 0
    WAITING_FOR_DATA = 1
    TRAINING = 2
    EVALUATING = 3
    WRITING_CHECKPOINT = 4

    @property
    def words(self) -> str:
        """As a message says it: ``while it trains``."""
        return ("starts", "waits for data", "trains", "evaluates", "writes a checkpoint")[self]


class Beat(NamedTuple):
    number: int  # beats so far
    step: int  # optimizer steps done
    activity: Activity


class Heartbeat:
    """The newest beat of this rank. One beat costs less than a microsecond."""

    def __init__(self) -> None:
        self.last = Beat(0, 0, Activity.STARTING)  # replaced as one object, so another thread never reads half of it

    def beat(self, step: int, activity: Activity) -> None:
        self.last = Beat(self.last.number + 1, step, activity)

    def repeat(self) -> None:
        """Progress within the same activity."""
        self.last = self.last._replace(number=self.last.number + 1)
