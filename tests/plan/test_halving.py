"""Rungs of a planned search: in epochs, checked, with their budget."""

from dataclasses import replace
from pathlib import Path

import pytest

from adarem.plan.halving import budget_text, settle
from adarem.plan.plan import make_plan
from adarem.run.config import RunConfig
from adarem.run.errors import UserError
from adarem.run.selection import Candidate, Chosen, Selection, Trials, write_selection
from adarem.run.sweep import Halving, SweepSpec, read_sweep
from tests.support.sweeps import make_config


def configs(epochs: int = 100, eval_every: int = 1, trials: int = 16) -> list[RunConfig]:
    changed = {"scale": {"epochs": epochs}, "train": {"eval_every": eval_every}}
    return [
        make_config("resnet18", optimizer, overrides={"optimizer.lr": 0.1 + i / 100}, changed=changed)
        for optimizer in ("sgdm", "adam")
        for i in range(trials)
    ]


def spec(rungs: tuple[int | float, ...], keep: str | float = "1/3", metric: str = "holdout_top1") -> SweepSpec:
    axes = {"model": ("resnet18",), "optimizer": ("sgdm", "adam")}
    search = {"sgdm": {"optimizer.lr": (0.1,)}}
    return SweepSpec("search", axes, (metric,), search=search, halving=Halving(rungs, keep))


@pytest.mark.parametrize(
    ("rungs", "epochs", "eval_every", "found"),
    [
        ((10, 30), 100, 1, (10, 30)),
        ((0.1, 0.3), 100, 1, (10, 30)),
        ((0.1, 0.3), 10, 1, (1, 3)),
        ((0.1, 0.3), 3, 1, (1,)),  # two shares are the same epoch
        ((0.1, 0.3), 1, 1, None),  # no epoch before the last
        ((0.1, 0.3), 100, 4, (8, 32)),
        ((0.001, 0.3), 100, 5, (5, 30)),
        ((0.1, 30), 100, 1, (10, 30)),
        ((8, 16), 100, 8, (8, 16)),
    ],
)
def test_rungs_become_epochs(
    rungs: tuple[int | float, ...], epochs: int, eval_every: int, found: tuple[int, ...] | None
) -> None:
    settled = settle(spec(rungs), configs(epochs, eval_every, 2))
    assert settled == (Halving(found) if found else None)
    assert settled is None or all(type(rung) is int for rung in settled.rungs)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (spec(()), "grid.halving.rungs=[]: needs epochs from 1 to 99 in order, or shares"),
        (spec((30, 10)), "rungs=[30, 10]: needs epochs from 1 to 99 in order"),
        (spec((10, 10)), "in order"),
        (spec((0,)), "from 1 to 99"),
        (spec((-3,)), "from 1 to 99"),
        (spec((10, 100)), "from 1 to 99"),
        (spec((1.5,)), "from 1 to 99"),
        (spec((10,), "0"), "grid.halving.keep=0: needs a share of the trials between 0 and 1, for instance 1/3"),
        (spec((10,), 1.0), "keep=1.0: needs a share"),
        (spec((10,), "1/0"), "keep=1/0: needs a share"),
        (spec((10,), "third"), "keep=third: needs a share"),
        (spec((10,), "-1/3"), "keep=-1/3: needs a share"),
        (spec((10,), metric="q_mean"), "q_mean has no figure after each epoch"),
        (replace(spec((10,)), search={}), "grid.halving: the grid has no search"),
    ],
)
def test_what_is_no_halving_is_one_line(changed: SweepSpec, words: str) -> None:
    with pytest.raises(UserError) as e:
        settle(changed, configs(trials=2))
    assert words in str(e.value) and "\n" not in str(e.value)


def test_rungs_are_evaluated_and_the_same_for_every_run() -> None:
    with pytest.raises(UserError, match="eval_every=4 evaluates nothing after epoch 10; give multiples of 4"):
        settle(spec((10,)), configs(eval_every=4, trials=2))
    with pytest.raises(UserError, match="runs differ in scale.epochs"):
        settle(spec((10,)), [*configs(100, trials=2), *configs(90, trials=2)])


def test_the_budget_is_said() -> None:
    assert budget_text(spec((10, 30)), configs()) == (
        "halving: after 10 and 30 epochs the better 1/3 of each optimizer's trials on a network goes on; at most 840 "
        "epochs in place of 3,200"
    )
    assert budget_text(replace(spec((10,)), halving=None), configs(trials=1)) is None


def test_the_last_plan_says_which_trials_a_search_has(tmp_path: Path) -> None:
    words = ["grid=table2_search", "data=digits", f"runs_dir={tmp_path}"]

    def plan(*more: str, optimizer: str = "sgdm") -> tuple[tuple[str, ...], list[str]]:
        made = make_plan([*words, f"optimizer={optimizer}", *more])
        made.write()
        return read_sweep(made.folder).runs, [n for n in made.notes if n.startswith("left out of the search")]

    four, nothing = plan("grid.draw.trials=4")
    assert len(four) == 4 and not nothing
    six, nothing = plan("grid.draw.trials=6")  # extends
    assert set(four) < set(six) and len(six) == 6 and not nothing
    again, (note,) = plan("grid.draw.trials=4")
    assert set(again) == set(four)
    first = min({*six} - {*four})
    assert note.startswith(
        f"left out of the search, planned before with other ranges or more trials: {first} and 1 more"
    )
    ranges = "grid.draw.seed=1"
    other, notes = plan("grid.draw.trials=4", ranges)
    assert len(other) == 4 and not {*other} & {*six} and notes
    part, nothing = plan("grid.draw.trials=4", ranges, "optimizer.lr=0.123")  # a rate of the user's own: further trials
    assert {*other} < {*part} and len(part) == 8 and not nothing
    adam, nothing = plan("grid.draw.trials=2", optimizer="adam")  # another optimizer's
    assert {*part} < {*adam} and not nothing


def test_figure_2_takes_the_settings_of_table_2s_search(tmp_path: Path) -> None:
    """That search has SGD too, which Table 2 has not."""
    search = make_plan(["grid=table2_search", "data=digits", "grid.draw.trials=1", f"runs_dir={tmp_path}"])
    search.write()
    best = {
        o: Chosen(Trials(1, 1, 0), Candidate({k: v[0] for k, v in search.spec.search[o].items()}, 1.0))
        for o in search.spec.optimizers
    }
    write_selection(
        search.folder, Selection(search.folder.name, "holdout_top1", "highest", (1000,), {"resnet18": best})
    )
    figure = make_plan(["grid=figure2", "data=digits", "grid.settings_from=table2_search", f"runs_dir={tmp_path}"])
    assert figure.folder.name == "figure2-digits-searched"
    rates = {p.config.optimizer.name: p.config.optimizer.lr for p in figure.runs}
    assert rates == {o: search.spec.search[o]["optimizer.lr"][0] for o in ("sgd", "sgdm", "adam", "adarem")}
    assert all(p.config.train.oscillation and p.config.data.evaluated_on == "val" for p in figure.runs)
