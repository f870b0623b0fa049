"""How many training images a planned run holds out."""

from pathlib import Path

import pytest

from adarem.plan.holdout import settle
from adarem.plan.plan import Plan, make_plan
from adarem.run.errors import UserError


@pytest.mark.parametrize(
    ("given", "train", "of_search", "held"),
    [
        ({}, 1437, False, None),
        ({"holdout": None}, 1437, False, None),
        ({"holdout": 0}, 1437, False, None),
        ({"holdout": 0.0}, 1437, False, None),
        ({"holdout": "auto"}, 1437, False, 0.04),
        ({"holdout": "auto"}, None, False, 0.04),
        ({}, 1_281_167, True, 50_000),
        ({}, 1_250_000, True, 0.04),
        ({}, 50_000, True, 0.04),
        ({"holdout": 100}, 50_000, True, 100),
    ],
)
def test_the_default_is_fifty_thousand_or_four_percent(given: dict, train: int, of_search: bool, held: object) -> None:
    data = {"kind": "images", "expected_train": train, **given}
    settle(data, of_search=of_search)
    assert data.get("holdout") == held and ("holdout" in data) == (held is not None)


@pytest.mark.parametrize("given", [None, 0, 0.0])
def test_a_search_never_selects_on_the_tables_images(given: object) -> None:
    with pytest.raises(UserError, match=r"data.holdout=(null|0|0.0): a search selects on held-out training images"):
        settle({"kind": "images", "holdout": given}, of_search=True)


def test_text_has_a_split_of_its_own() -> None:
    data: dict = {"kind": "text"}
    settle(data, of_search=True)
    assert data == {"kind": "text"}


def plan(tmp_path: Path, *overrides: str) -> Plan:
    return make_plan(["data=digits", f"runs_dir={tmp_path}", "optimizer=sgdm", *overrides])


def test_runs_on_held_out_images_are_a_sweep_of_their_own(tmp_path: Path) -> None:
    plain, held = plan(tmp_path), plan(tmp_path, "data.holdout=auto")
    assert (plain.folder.name, held.folder.name) == ("table2-digits", "table2-digits-holdout")
    assert (plain.spec.metrics, held.spec.metrics) == (("top1", "top5"), ("holdout_top1", "holdout_top5"))
    (run,) = held.runs
    assert run.config.data.holdout == 0.04 and run.config.run_name == "resnet18-sgdm-holdout=0.04-s0"
    assert "evaluated on training images that are held out (0.04 of all); the validation set is" in held.describe()
    assert [r.config for r in plan(tmp_path, "data.holdout=0").runs] == [r.config for r in plain.runs]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.holdout=1.0"], "data.holdout=1.0: needs a whole number of training images, or a share of them below 1"),
        (["data.holdout=-1"], "data.holdout=-1: needs a whole number"),
        (["data.holdout=-0.5"], "data.holdout=-0.5: needs a whole number"),
        (["data.holdout=true"], "data.holdout=True: needs a number of training images, a share"),
        (["data.holdout=all"], "data.holdout=all: needs a number of training images, a share"),
        (["data.holdout_seed=1"], "data.holdout_seed=1: nothing is held out; give data.holdout too"),
        (["grid.metrics=[holdout_top1]"], "holdout_top1: nothing is held out; give data.holdout=auto"),
        (["grid.metrics=[holdot_top1]"], "holdot_top1: did you mean 'holdout_top1'"),
    ],
)
def test_what_cannot_be_held_out_is_one_line(tmp_path: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("[", r"\[")):
        plan(tmp_path, *overrides)
