"""What a finished search selects: by the metric's own direction, network by network, ties and divergence said."""

import dataclasses
from pathlib import Path

import pytest

from adarem.run.catalog import METRICS, metric_named
from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.selection import Candidate, Chosen, Selection, Trials, read_selection, select, write_selection
from adarem.run.sweep import SweepSpec, write_sweep
from tests.support.sweeps import make_config

LRS = (0.1, 0.2, 0.4)


def write(folder: Path, metric: str = "holdout_top1", names: tuple[str, ...] = ()) -> None:
    axes = {"model": ("resnet18", "resnet50"), "optimizer": ("sgdm", "adam")}
    search = {o: {"optimizer.lr": LRS, "optimizer.weight_decay": (0.0, 1e-4)} for o in axes["optimizer"]}
    write_sweep(folder, SweepSpec("search", axes, (metric,), "title", seeds=(1000,), search=search, runs=names))


def config(
    lr: float, *, optimizer: str = "sgdm", model: str = "resnet18", seed: int = 1000, **more: object
) -> RunConfig:
    overrides = {"optimizer.lr": lr, **more.pop("overrides", {})}  # type: ignore[dict-item]  # as given below
    data = {"holdout": 0.04, **more.pop("data", {})}  # type: ignore[dict-item]
    made = make_config(model, optimizer, seed, data="digits", overrides=overrides, changed={"data": data})
    return dataclasses.replace(made, overrides={k: str(v) for k, v in overrides.items()})


def finish(folder: Path, config: RunConfig, value: float | None, metric: str = "holdout_top1") -> RunDir:
    run = RunDir(folder / config.run_name)
    run.freeze(config)
    run.start_attempt({})
    run.write_result({"status": "diverged"} if value is None else {"status": "done", "top1": -value, metric: value})
    return run


def search(folder: Path, figures: dict[float, float | None], metric: str = "holdout_top1", **more: object) -> Chosen:
    write(folder, metric)
    for lr, value in figures.items():
        finish(folder, config(lr, **more), value, metric)
    return select(folder).selected["resnet18"]["sgdm"]


@pytest.mark.parametrize("name", METRICS)
def test_the_direction_is_the_metrics_own(tmp_path: Path, name: str) -> None:
    chosen = search(tmp_path, {0.1: 50.0, 0.2: 60.0, 0.4: 40.0}, name)
    best, other = (0.4, 0.1) if METRICS[name].lower_is_better else (0.2, 0.1)
    assert chosen.best and chosen.next
    assert (chosen.best.settings, chosen.next.settings) == ({"optimizer.lr": best}, {"optimizer.lr": other})
    assert f"{'lowest' if METRICS[name].lower_is_better else 'highest'} {name} after" in select(tmp_path).rule


def test_an_unknown_metric_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, "holdout_top2")
    with pytest.raises(UserError, match=r"grid.yaml: metrics: holdout_top2: did you mean 'holdout_top5'\?, and plan"):
        select(tmp_path)
    with pytest.raises(UserError, match="topp1: did you mean 'top1'"):
        metric_named("topp1")


@pytest.mark.parametrize("name", ["holdout_top1", "val_perplexity"])
def test_divergence_is_worst_and_counted(tmp_path: Path, name: str) -> None:
    chosen = search(tmp_path, {0.1: 7.0, 0.2: None, 0.4: None}, name)
    assert chosen == Chosen(Trials(3, 3, 2), Candidate({"optimizer.lr": 0.1}, 7.0), edges={"optimizer.lr": "lowest"})
    assert chosen.text() == (
        "7.00, no other finished without diverging, 3 trials, 2 of them diverged; at the lowest optimizer.lr tried"
    )
    # One diverged seed is enough.
    finish(tmp_path, config(0.1, seed=1001), None, name)
    for lr in (0.2, 0.4):
        finish(tmp_path, config(lr, seed=1001), 5.0, name)
    chosen = select(tmp_path).selected["resnet18"]["sgdm"]
    assert (chosen.best, chosen.trials, chosen.text()) == (None, Trials(3, 3, 3), "3 trials, 3 of them diverged")


def test_of_equal_trials_the_smaller_settings_are_taken_and_said(tmp_path: Path) -> None:
    write(tmp_path)
    for lr, decay in ((0.4, 0.0), (0.2, 1e-4), (0.2, 0.0), (0.1, 1e-4)):
        made = config(lr, overrides={"optimizer.weight_decay": decay})
        finish(tmp_path, made, 50.0 if lr > 0.1 else 49.0)
    chosen = select(tmp_path).selected["resnet18"]["sgdm"]
    assert chosen.best and chosen.best.settings == {"optimizer.lr": 0.2, "optimizer.weight_decay": 0.0}
    assert chosen.next == Candidate({"optimizer.lr": 0.2, "optimizer.weight_decay": 1e-4}, 50.0)
    assert chosen.ties == 2 and "equal to 2 others, of which the smaller settings are taken" in chosen.text()
    assert chosen.edges == {}  # 0 is the least weight decay there is


def test_seeds_are_averaged_and_networks_are_not(tmp_path: Path) -> None:
    write(tmp_path)
    figures = {
        ("resnet18", 0.1): (50, 70),
        ("resnet18", 0.2): (59, 59),
        ("resnet50", 0.1): (1, 2),
        ("resnet50", 0.2): (3, 3),
    }
    for (model, lr), values in figures.items():
        for seed, value in enumerate(values, 1000):
            finish(tmp_path, config(lr, model=model, seed=seed), value)
    found = select(tmp_path)
    assert found.seeds == (1000, 1001)
    best = {model: found.selected[model]["sgdm"].best for model in found.selected}
    assert best == {
        "resnet18": Candidate({"optimizer.lr": 0.1}, 60.0),
        "resnet50": Candidate({"optimizer.lr": 0.2}, 3.0),
    }


def test_what_no_selection_may_rest_on_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, names=("resnet18-sgdm-lr=0.9-s1000",))
    with pytest.raises(UserError, match="1 of 1 runs of the search are not finished; launch grid=search as before"):
        select(tmp_path)
    write(tmp_path)
    finish(tmp_path, config(0.1), 50.0)
    RunDir(tmp_path / "resnet18-sgdm-lr=0.2-s1000").freeze(config(0.2))
    finish(tmp_path, config(0.4, seed=1001), 50.0)
    with pytest.raises(UserError, match=r"4 of 6 runs .* not finished; .* with seeds=\[1000,1001\]"):
        select(tmp_path)


@pytest.mark.parametrize(
    ("data", "value", "words"),
    [
        ({"holdout": None}, 50.0, "was evaluated on the images that the table reports, and no search selects on those"),
        (
            {"holdout": 0.1},
            50.0,
            r"not of one search \(.*holdout 0.04, holdout_seed 0; .*holdout 0.1, holdout_seed 0\)",
        ),
        ({"holdout_seed": 1}, 50.0, "not of one search"),
    ],
)
def test_runs_on_other_images_are_refused(tmp_path: Path, data: dict, value: float, words: str) -> None:
    write(tmp_path)
    if data.get("holdout", 1) is not None:
        finish(tmp_path, config(0.1), 50.0)
    finish(tmp_path, config(0.2, data=data), value)
    with pytest.raises(UserError, match=words):
        select(tmp_path)


def test_a_finished_run_without_its_figure_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    finish(tmp_path, config(0.1), 50.0, "holdout_top5")
    with pytest.raises(UserError, match=r"lr=0.1-s1000: done, and has no finite holdout_top1; remove the run"):
        select(tmp_path)


def test_the_file_is_read_back_and_written_once(tmp_path: Path) -> None:
    search(tmp_path, {0.1: 50.0, 0.2: 60.0, 0.4: None})
    selection = select(tmp_path)
    path = write_selection(tmp_path, selection)
    made = path.stat().st_mtime_ns, path.stat().st_ino
    read = read_selection(path)
    assert read.selection == selection and isinstance(selection, Selection)
    assert write_selection(tmp_path, select(tmp_path)) == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == made
    path.write_text(path.read_text().replace("0.2", "0.3"))
    assert read_selection(path).sha256 != read.sha256
    for damage, words in (
        ("format: 9\n", "no selection of format 1"),
        ("[]", "holds no mapping"),
        ("format: 1", "missing"),
    ):
        path.write_text(damage)
        with pytest.raises(UserError, match=f"{words}.*; have `adarem report` write it again"):
            read_selection(path)
    path.unlink()
    with pytest.raises(UserError, match="no such file; `adarem report` of the search writes it once"):
        read_selection(path)
