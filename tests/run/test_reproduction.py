"""One rule says what a run counts as: by its config, and by the data that it recorded once it ran."""

import dataclasses

import pytest

from adarem.run.config import RunConfig
from adarem.run.labels import table_cell
from adarem.run.reproduction import Seen, Standing, seen_by, standing_of_run, standing_of_sweep
from adarem.run.stated import Stated
from adarem.run.sweep import PaperPart, SweepLabels, SweepSpec
from tests.support.sweeps import make_config

AXES = {"model": ("resnet18",), "optimizer": ("sgdm", "adarem")}
PAPERS = SweepSpec("table2", AXES, ("top1",), paper=PaperPart("Table 2", "table2.csv"))
STUDY = dataclasses.replace(PAPERS, name="mine", paper=None)
LAMBDAS = dataclasses.replace(PAPERS, name="lambda", overrides={"λ 0.9": {"optimizer.lam": 0.9}})
STATED = Stated({"images": {"sgdm": {"lr": 0.4}, "adarem": {"lr": 0.4, "lam": 0.999}}}, {})
FULL = {"train": 1_281_167, "val": 50_000}


def config(optimizer: str = "sgdm", **changed: object) -> RunConfig:
    return make_config("resnet18", optimizer, **changed)  # type: ignore[arg-type]  # of make_config, as named there


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, None),
        ({"scale": "smoke"}, "ImageNet, 2 epochs, global batch 64"),
        ({"changed": {"scale": {"epochs": 90}}}, "ImageNet, 90 epochs"),
        ({"changed": {"scale": {"lr_factor": 0.5}}}, "ImageNet, 100 epochs"),
        ({"changed": {"data": {"expected_val": 8}}}, "ImageNet, 100 epochs"),  # else eight images would pass for all
        ({"data": "digits", "scale": "paper"}, "embedded digits, 100 epochs"),
        ({"changed": {"data": {"embedded": True}}}, "ImageNet, 100 epochs"),
    ],
)
def test_the_config_decides_before_a_run(changed: dict, words: str | None) -> None:
    found = standing_of_run(config(**changed), PAPERS, stated=STATED)
    assert found.kind == ("rehearsal" if words else "reproduction")
    assert (words or "the paper's data") in found.reason and (found.rehearsal is None) == (words is None)
    assert standing_of_run(config(**changed), None).kind == found.kind
    assert standing_of_run(config(**changed), STUDY).kind == "study"


@pytest.mark.parametrize(
    ("optimizer", "overrides", "spec", "reason"),
    [
        ("sgdm", {"optimizer.lr": 0.2}, PAPERS, "lr 0.2 (the paper states 0.4)"),
        ("sgdm", {"optimizer.lr": 0.4}, PAPERS, None),
        ("sgdm", {"optimizer.weight_decay": 5e-4}, PAPERS, "weight decay 0.0005"),
        ("adarem", {"optimizer.lam": 0.9}, PAPERS, "λ 0.9 (the paper states 0.999)"),
        ("adarem", {"optimizer.lam": 0.9}, LAMBDAS, None),
        ("adarem", {"optimizer.lam": 0.8}, LAMBDAS, "λ 0.8 (the paper states 0.999)"),
        ("adarem", {"optimizer.lam": 0.8}, STUDY, None),
    ],
)
def test_another_setting_is_a_variation(optimizer: str, overrides: dict, spec: SweepSpec, reason: str | None) -> None:
    found = standing_of_run(config(optimizer, overrides=overrides), spec, stated=STATED)
    assert (found.kind == "variation") == (reason is not None)
    assert reason is None or found.reason == f"another setting than the paper's: {reason}"


def test_a_rate_changed_in_configs_is_a_variation_though_no_name_shows_it() -> None:
    changed = config(changed={"optimizer": {"lr": 0.1}})
    assert standing_of_run(changed, PAPERS, stated=STATED).kind == "variation"
    assert not changed.overrides


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"schedule": {"name": "constant"}}, "constant learning rate, no warm-up"),
        ({"schedule": {"min_lr": 0.1}}, "cosine learning rate, no warm-up, falls to 0.1"),
        ({"train": {"clip_grad_norm": 1.0}}, "cosine learning rate, no warm-up, gradient clipped to norm 1"),
        ({"optimizer": {"no_decay": ["bias"]}}, "no decay of bias"),
        ({"model": {"init": "/weights.pt", "init_sha256": "ab"}}, "weights to start from"),
    ],
)
def test_a_recipe_of_a_file_is_a_variation_though_no_name_shows_it(changed: dict, reason: str) -> None:
    found = standing_of_run(config(changed=changed), PAPERS, stated=STATED)
    assert (found.kind, found.reason) == ("variation", f"another setting than the paper's: {reason}")


def test_a_searched_setting_is_the_grids_own() -> None:
    search = dataclasses.replace(PAPERS, search={"sgdm": {"optimizer.lr": (0.2, 0.4)}})
    kinds = [standing_of_run(config(overrides={"optimizer.lr": lr}), search, stated=STATED).kind for lr in (0.2, 0.3)]
    assert kinds == ["reproduction", "variation"]


@pytest.mark.parametrize(
    ("counts", "evaluated", "words"),
    [
        ({}, (50_000,), None),
        ({"train": 1_279_886}, (50_000,), None),  # 0.1 % left out by `adarem prepare --skip-bad`
        ({"train": 1_279_885}, (50_000,), "ImageNet with 1,279,885 of 1,281,167 training images"),
        ({"train": 1_281_168}, (50_000,), "ImageNet with 1,281,168 of 1,281,167 training images"),
        ({"val": None}, (50_000,), "an unknown number of 50,000 validation images"),
        ({}, (50_000, 49_000), "ImageNet, evaluated on 49,000 of 50,000 validation images"),
        ({}, (None,), "evaluated on an unknown number of 50,000"),
    ],
)
def test_the_record_decides_after_a_run(counts: dict, evaluated: tuple, words: str | None) -> None:
    found = standing_of_run(config(), PAPERS, Seen(FULL | counts, evaluated), STATED)
    assert found.kind == ("rehearsal" if words else "reproduction") and (words or "") in found.reason


@pytest.mark.parametrize(
    ("micro", "ranks", "recorded", "words"),
    [
        (64, 1, (), None),
        (None, 16, (64,), None),
        (None, 1, (), "BatchNorm over 1024 images"),
        (128, 1, (), "BatchNorm over 128 images"),
        (None, 16, (64, 128), "BatchNorm over 64, then 128 images"),
        (None, 16, (1024,), "BatchNorm over 1024 images"),
        (None, 1, (64,), None),  # started on other ranks than the config says
    ],
)
def test_another_number_of_images_normalised_together_is_a_variation(
    micro: int | None, ranks: int, recorded: tuple, words: str | None
) -> None:
    changed = {"scale": {"micro_batch_size": micro}, "cluster": {"nodes": 1, "ranks_per_node": ranks}}
    overrides = {"scale.micro_batch_size": micro} if micro not in (None, 64) else {}
    run = config(changed=changed, overrides=overrides)
    found = standing_of_run(run, PAPERS, Seen(FULL, (50_000,), recorded), STATED)
    assert found.kind == ("variation" if words else "reproduction")
    assert words is None or found.reason == f"another setting than the paper's: {words}"
    assert table_cell(run, SweepLabels()).endswith(f"({words})" if overrides else "SGDM")


def test_what_a_result_records() -> None:
    fingerprint = {"train": {"num_images": 7}, "val": {"num_images": 8}}
    done = {"status": "done", "fingerprint": fingerprint, "evaluation": {"images": 8}}
    assert seen_by(config(), done, [9]) == Seen({"train": 7, "val": 8}, (9, 8))
    assert seen_by(config(), {}, [9]) == Seen(None, [9])
    assert seen_by(config(), {"status": "diverged", "fingerprint": "damaged"}) == Seen({"train": None, "val": None}, ())
    assert standing_of_run(config(), PAPERS, Seen(None, (50_000,)), STATED).kind == "reproduction"


REPRODUCTION, VARIATION = Standing("reproduction", "r"), Standing("variation", "v")
REHEARSAL, OF_STUDY = Standing("rehearsal", "small"), Standing("study", "s")


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([REPRODUCTION, REPRODUCTION], ("reproduction", "the paper's data, scale and settings")),
        ([REPRODUCTION, REHEARSAL], ("rehearsal", "small (1 of 2 runs)")),
        ([REHEARSAL, REHEARSAL], ("rehearsal", "small")),
        ([VARIATION, REHEARSAL], ("rehearsal", "small (1 of 2 runs)")),
        ([VARIATION, VARIATION], ("variation", "v")),
        (
            [REPRODUCTION, VARIATION],
            ("reproduction", "the paper's data, scale and settings; 1 of 2 runs are variations"),
        ),
        ([OF_STUDY], ("study", "s")),
    ],
)
def test_a_sweeps_standing(runs: list[Standing], expected: tuple[str, str]) -> None:
    assert standing_of_sweep(PAPERS, "table2", runs) == Standing(*expected)  # type: ignore[arg-type]  # a kind


def test_an_empty_sweeps_standing_is_that_of_its_name() -> None:
    assert standing_of_sweep(PAPERS, "table2", []).kind == "reproduction"
    assert standing_of_sweep(PAPERS, "table2-digits", []).rehearsal == "table2-digits holds no readable run"
    assert standing_of_sweep(STUDY, "mine", []).kind == "study"


def test_a_run_with_a_holdout_is_never_a_reproduction() -> None:
    held = config(changed={"data": {"holdout": 50_000}})
    found = standing_of_run(held, PAPERS, stated=STATED)
    assert found == Standing("variation", "another setting than the paper's: evaluated on held-out training images")
    # What it records of its data has no validation images, and does not make a rehearsal of it.
    prints = {"train": {"num_images": FULL["train"]}, "holdout": {"num_images": 50_000}}
    result = {"status": "done", "fingerprint": prints, "evaluation": {"images": 50_000}}
    assert standing_of_run(held, PAPERS, seen_by(held, result, [50_000]), STATED).kind == "variation"
    fewer = result | {"fingerprint": prints | {"train": {"num_images": 8}}}
    assert standing_of_run(held, PAPERS, seen_by(held, fewer), STATED).kind == "rehearsal"
