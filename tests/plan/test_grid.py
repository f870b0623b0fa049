"""A grid file becomes a typed grid, and its axes, overrides and search become places in it."""

import dataclasses

import pytest

from adarem.plan.compose import composing
from adarem.plan.grid import checked_seeds, places, spec_of, widened
from adarem.run.errors import UserError
from adarem.run.sweep import PaperPart, SweepLabels, SweepSpec

FILE = {
    "name": "mine",
    "title": "Two rates",
    "axes": {"model": ["resnet18"], "optimizer": ["adam", "adarem"], "optimizer.lr": [0.1, 3e-4]},
    "metrics": ["top1"],
    "seeds": [0, 1],
}


def spec(**changed: object) -> SweepSpec:
    with composing():
        return spec_of(FILE | changed)


def test_a_grid_file_is_typed() -> None:
    found = spec(paper={"source": "Table 9", "values": "table9.csv"}, heading=None)
    assert found.axes == {"model": ("resnet18",), "optimizer": ("adam", "adarem"), "optimizer.lr": ("0.1", "0.0003")}
    assert (found.paper, found.seeds, found.selection) == (PaperPart("Table 9", "table9.csv"), (0, 1), "final epoch")
    assert spec().paper is None  # a study


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"paper": "table2.csv"}, "grid.paper='table2.csv': needs a mapping with source, values"),
        ({"paper": {"values": "x.csv"}}, "grid.paper.source: missing"),
        ({"paper": {"source": "x", "values": "../x"}}, "grid.paper.values=../x: names files"),
        ({"variants": {}}, "grid.variants: no such key; its name is 'overrides'"),
        ({"winners": "x"}, "grid.winners: no such key; its name is 'settings_from'"),
        ({"labels": {}}, "grid.labels: no such key; "),
        ({"metrics": ["topp1"]}, "grid.metrics=['topp1']: topp1: did you mean 'top1'?"),
        ({"seeds": None}, "grid.seeds=None: needs a list of int"),
    ],
)
def test_a_key_that_no_grid_file_has_is_one_line(changed: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        spec(**changed)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_places_are_the_product_of_axes_overrides_and_the_optimizers_own_search() -> None:
    axes = {"model": ("resnet18",), "optimizer": ("adam", "adarem")}
    grid = SweepSpec(
        "mine",
        axes,
        ("top1",),
        overrides={"a": {}, "b": {"train.compile": True}},
        search={"adam": {"optimizer.lr": (0.1, 0.2)}},
    )
    found = places(grid, ())
    adam = [p for p in found if p["optimizer"] == "adam"]
    assert (len(adam), len(found)) == (4, 6)
    assert {"model": "resnet18", "optimizer": "adam", "train.compile": "True", "optimizer.lr": "0.2"} in adam
    # what the user gives is varied no more, and places that are then alike count once
    assert len(places(grid, {"optimizer.lr"})) == 4
    assert places(grid, {"optimizer.lr", "train.compile"}) == [
        {"model": "resnet18", "optimizer": "adam"},
        {"model": "resnet18", "optimizer": "adarem"},
    ]


def test_seeds() -> None:
    assert checked_seeds([3, 5]) == checked_seeds((3, 5)) == (3, 5)
    assert checked_seeds(3) == (3,)
    for wrong in ([], [1, 1], [True], [1.5], ["x"], [-1], [2**32]):
        with pytest.raises(UserError, match=r"^seeds="):
            checked_seeds(wrong)


def test_a_plan_of_a_part_never_narrows_what_was_planned() -> None:
    file = spec(axes={"model": ["resnet18"], "optimizer": ["adam", "sgdm", "adarem"]}, seeds=[0, 1, 2])

    def part(optimizers: tuple[str, ...], seeds: tuple[int, ...], **more: object) -> SweepSpec:
        runs = tuple(f"resnet18-{o}-s{s}" for o in optimizers for s in seeds)
        axes = file.axes | {"optimizer": optimizers}
        return dataclasses.replace(file, axes=axes, seeds=seeds, runs=runs, **more)  # type: ignore[arg-type]

    before = part(("torch:NAdam", "adarem"), (5, 1), labels=SweepLabels({}, {"torch:NAdam": "NAdam"}, {"lam=0.9": "x"}))
    now = part(("adam",), (0,), labels=SweepLabels({}, {"adam": "Adam"}, {"": "plain"}))
    found = widened(now, before, file)
    assert found.optimizers == ("adam", "adarem", "torch:NAdam")  # the file's order; sgdm was never planned
    assert found.seeds == (0, 1, 5)
    assert found.runs == (*before.runs, *now.runs)
    assert found.labels.optimizer == {"torch:NAdam": "NAdam", "adam": "Adam"}
    assert list(found.labels.overrides) == ["", "lam=0.9"]
    assert widened(found, now, file).runs == (*now.runs, *before.runs)
    assert widened(now, now, file) == now
