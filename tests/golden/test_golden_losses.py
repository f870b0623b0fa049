"""The loss of every step, of real launches on two ranks, to the bit where the machine is the same."""

import json
from pathlib import Path

import pytest

from . import cases
from .harness import EXPECTED, check_trained, environment

_LOSSES = [pytest.param(data, marks=pytest.mark.slow) if data == "digits" else data for data in cases.LOSSES]


@pytest.mark.parametrize("data", _LOSSES)
def test_the_loss_of_every_step_is_the_golden_one(data: str, tmp_path: Path) -> None:
    check_trained("losses", data, cases.losses(tmp_path, data), environment(tmp_path))


def test_one_bit_is_a_difference() -> None:
    golden = json.loads((EXPECTED / "losses" / "pydoc.json").read_text())
    here = golden.pop("environment")
    check_trained("losses", "pydoc", golden, here)
    cell = next(iter(golden))
    loss = float.fromhex(golden[cell]["train_loss"][7])
    golden[cell]["train_loss"][7] = (loss * (1 + 2**-52)).hex()
    with pytest.raises(AssertionError, match=r"(?s)@@.*python -m tests.golden.update"):
        check_trained("losses", "pydoc", golden, here)
    elsewhere = here | {"cpu": "another"}
    check_trained("losses", "pydoc", golden, elsewhere)
    golden[cell]["train_loss"][7] = (loss * 1.001).hex()
    with pytest.raises(AssertionError, match=r"train_loss\[7\]"):
        check_trained("losses", "pydoc", golden, elsewhere)


def test_elsewhere_the_first_steps_of_the_digits_are_compared() -> None:
    golden = json.loads((EXPECTED / "losses" / "digits.json").read_text())
    elsewhere = golden.pop("environment") | {"cpu": "another"}
    run = next(iter(golden))
    losses = golden[run]["train_loss"]
    losses[2], golden[run]["weights"] = (1.01 * float.fromhex(losses[2])).hex(), "another"
    check_trained("losses", "digits", golden, elsewhere)
    losses[1] = (1.001 * float.fromhex(losses[1])).hex()
    with pytest.raises(AssertionError, match=r"train_loss\[1\]"):
        check_trained("losses", "digits", golden, elsewhere)
