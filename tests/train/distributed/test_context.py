"""Every rank ends with the error and the exit code of the rank that failed; the other ranks are stand-ins."""

import pytest
import torch

from adarem.cli import main
from adarem.run.errors import UserError
from adarem.train.distributed.context import RankContext, on_main_rank, raise_on_all_ranks


class Ranks(RankContext):
    """A process group in which another rank reports ``theirs``."""

    theirs: UserError | None = None

    def gather(self, value: object) -> list[object]:
        theirs = None if self.theirs is None else [str(self.theirs), self.theirs.retryable]
        return [value, theirs] if self.rank == 0 else [theirs, value]


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("no such folder"), 2), (UserError("another process", retryable=True), 1)]
)
def test_every_rank_ends_with_the_code_of_the_one_that_failed(
    error: UserError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """srun takes the highest of all: 2 from one rank would keep Slurm from starting a retryable one again."""
    monkeypatch.setattr("adarem.run.directory.RunDir.config", lambda self: None)  # looked at before torch is loaded
    printed = []
    for rank in (0, 1):
        context = Ranks(rank, 2, rank, torch.device("cpu"), ("n1", "n2"))
        object.__setattr__(context, "theirs", error)
        monkeypatch.setattr(
            "adarem.train.train.train", lambda path, context=context: raise_on_all_ranks(context, lambda: None)
        )
        assert main(["train", "anywhere"]) == code
        printed.append(capsys.readouterr().err)
    assert printed == [f"adarem train: rank 1 on n2: {error}\n", ""]
    with pytest.raises(UserError) as raised:
        raise_on_all_ranks(context, lambda: None)
    assert raised.value.reported and raised.value.retryable is (code == 1)


def test_one_rank_acts_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    context = RankContext(1, 2, 1, torch.device("cpu"), ("n1", "n2"))
    monkeypatch.setattr(RankContext, "gather", lambda self, value: [value, value])
    monkeypatch.setattr(RankContext, "broadcast", lambda self, value: (value, "of rank 0"))
    assert on_main_rank(context, lambda: pytest.fail("rank 1 acted")) == (None, "of rank 0")
