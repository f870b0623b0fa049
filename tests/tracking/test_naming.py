"""What runs are called in wandb."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from adarem.plan.plan import make_plan
from adarem.run.directory import RunDir
from adarem.run.labels import readable, shortened
from adarem.run.sweep import read_sweep, write_sweep
from adarem.tracking.naming import describe, run_id
from tests.support.sweeps import finish, make_config, write_grid


def test_names_and_groups_read_like_the_table(tmp_path: Path) -> None:
    """One group per cell of the table, for all its seeds; the grid's own labels of settings."""
    make_plan(["grid=lambda", "data=digits", "seeds=[0,1]", f"runs_dir={tmp_path}"]).write()
    folder = tmp_path / "lambda-digits"
    shown = {p.name: describe(RunDir(p), RunDir(p).config()) for p in folder.iterdir() if p.is_dir()}
    own, decaying = shown["resnet18-adarem-s1"], shown["resnet18-adarem-lam=1.0-s0"]
    assert own.name == "ResNet-18 · AdaRem (λ 0.999 once an epoch) · seed 1"
    assert decaying.name == "ResNet-18 · AdaRem (λ 1, never decaying) · seed 0"
    assert decaying.group == "lambda-digits · ResNet-18 · AdaRem (λ 1, never decaying)"
    assert decaying.group == shown["resnet18-adarem-lam=1.0-s1"].group != own.group
    assert len({s.group for s in shown.values()}) == len({s.config["table_cell"] for s in shown.values()}) == 5
    assert {s.config["cell"] for s in shown.values()} == set(shown)  # each run is found by its directory's name
    (folder / "grid.yaml").write_text("{")
    run = RunDir(folder / "resnet18-adarem-lam=1.0-s0")
    assert describe(run, run.config()).name == "ResNet-18 · AdaRem (λ 1.0) · seed 0"


def test_settings_are_in_words() -> None:
    assert readable({"optimizer.weight_decay": 0.0005, "optimizer.lam": 0.9}) == "λ 0.9, weight decay 0.0005"


def test_names_and_tags_are_as_long_as_wandb_takes(tmp_path: Path) -> None:
    model = {"name": f"timm:{'x' * 140}", "label": f"timm:{'x' * 140}"}
    shown = []
    for lr in (0.1, 0.2):
        config = make_config(
            "resnet18", "adam", 12, data="digits", overrides={"optimizer.lr": lr}, changed={"model": model}
        )
        shown.append(describe(RunDir(tmp_path / "table2-digits" / config.run_name), config))
    for s in shown:
        assert len(s.name) <= 128 and s.name.endswith(" · seed 12")
        assert len(s.group) <= 128 and max(map(len, s.tags)) <= 64
    assert shown[0].group != shown[1].group and shown[0].name != shown[1].name
    assert shortened("ResNet-18", 128) == "ResNet-18"


def test_the_id_is_stable_and_differs_between_runs(tiny_run: Callable[..., Path]) -> None:
    a, b = RunDir(tiny_run("optimizer=adam")), RunDir(tiny_run("optimizer=adarem"))
    assert run_id(a, a.config()) == run_id(a, a.config()) != run_id(b, b.config())


def test_the_stamp_is_by_the_data_that_the_run_saw(tmp_path: Path) -> None:
    folder = write_grid(tmp_path)
    complete = finish(folder, make_config("resnet18", "adarem"), 70.5)
    partial = finish(folder, make_config("resnet18", "adarem", 1), 70.5, correct=np.ones(100, dtype=bool))
    assert describe(complete, complete.config()).notes is None
    shown = describe(partial, partial.config())
    assert shown.tags[-1] == "rehearsal"
    assert shown.notes is not None and shown.notes.startswith(
        "REHEARSAL: ImageNet with 100 of 50,000 validation images"
    )
    partial.result_file.write_text("{")
    assert describe(partial, partial.config()).tags[-1] == "rehearsal"  # by the evaluations that it recorded


def test_a_study_is_tagged_as_one_and_not_stamped(tmp_path: Path) -> None:
    folder = write_grid(tmp_path)
    write_sweep(folder, replace(read_sweep(folder), paper=None))
    run = finish(folder, make_config("resnet18", "adarem"), 70.5)
    shown = describe(run, run.config())
    assert shown.tags[-1] == "study" and (shown.notes or "").startswith("study: ImageNet, 100 epochs")
