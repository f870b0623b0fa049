"""Grids become run directories: named, checked, idempotent."""

from pathlib import Path

import pytest

from adarem.compose import config_dir
from adarem.errors import UserError
from adarem.plan import make_plan


def names(overrides: list[str]) -> list[str]:
    return [cell.config.cell for cell in make_plan(overrides).cells]


def test_table2_is_the_papers() -> None:
    plan = make_plan(["grid=table2", "data.root=/data/imagenet"])
    assert plan.folder.name == "table2"
    rates = {c.config.optimizer.name: c.config.optimizer.lr for c in plan.cells}
    # Section 4.1.1: 0.4 for SGD and AdaRem, 0.004 for Adam, AdamW, AdaBound, 0.0001 for RMSProp
    assert rates == {"sgdm": 0.4, "adam": 0.004, "adamw": 0.004, "adabound": 0.004, "rmsprop": 1e-4, "adarem": 0.4}
    for cell in plan.cells:
        c = cell.config
        assert (c.scale.epochs, c.scale.global_batch_size, c.cluster.world_size) == (100, 1024, 16)
        assert (c.schedule.name, c.schedule.warmup_epochs, c.scale.lr_factor) == ("cosine", 0, 1.0)
        assert c.data.beton_dir == "/data/imagenet/ffcv"
    assert plan.cells[-1].config.optimizer.hyper["lam"] == 0.999


def test_table1_is_the_papers() -> None:
    plan = make_plan(["grid=table1", "data.root=/data/imagenet"])
    assert len(plan.cells) == 12
    assert {c.config.optimizer.label for c in plan.cells} == {"SGDM", "AdaRem-S"}
    assert len({c.config.model.label for c in plan.cells}) == 6


def test_every_optimizer_and_model_file_composes() -> None:
    optimizers = sorted(p.stem for p in (config_dir() / "optimizer").glob("*.yaml"))
    models = sorted(p.stem for p in (config_dir() / "model").glob("*.yaml") if p.stem != "awd_lstm")
    plan = make_plan(["data=digits", f"optimizer={','.join(optimizers)}", f"model={','.join(models)}"])
    assert len(plan.cells) == len(optimizers) * len(models)
    for schedule in ("cosine", "step", "constant"):
        make_plan(["data=digits", "scale.epochs=100", f"schedule={schedule}"])


def test_cell_names() -> None:
    assert names(["data=digits", "optimizer=adarem"]) == ["resnet18-adarem-s0"]
    assert names(["data=digits", "optimizer=adarem", "optimizer.weight_decay=5e-4", "seeds=[3]"]) == [
        "resnet18-adarem-weight_decay=0.0005-s3"
    ]
    assert names(["data=digits", "optimizer=adam", "schedule=constant", "model=timm:resnet10t"]) == [
        "timm_resnet10t-adam-schedule=constant-s0"
    ]
    # where and how to run never shows
    assert names(
        ["data=digits", "optimizer=adam", "cluster.ranks_per_node=1", "wandb.mode=disabled", "data.workers=2"]
    ) == ["resnet18-adam-s0"]


def test_comma_separated_values_are_axes() -> None:
    assert names(["data=digits", "optimizer=sgdm,adarem", "optimizer.lr=0.1,0.2", "seeds=[0,1]"]) == [
        f"resnet18-{o}-lr={lr}-s{s}" for o in ("sgdm", "adarem") for lr in (0.1, 0.2) for s in (0, 1)
    ]


def test_variants_of_a_grid() -> None:
    plain = ["resnet18-adarem-s0", "resnet18-adarem-decay_every=step-s0"]
    tried = [f"resnet18-adarem-lam={lam}-s0" for lam in ("1.0", "0.99", "0.9")]
    assert names(["grid=lambda", "data=digits"]) == plain + tried
    # what the user settles is varied no more, and cells that are then alike count once
    assert names(["grid=lambda", "data=digits", "optimizer.lam=0.5"]) == [
        "resnet18-adarem-lam=0.5-s0",
        "resnet18-adarem-decay_every=step-lam=0.5-s0",
    ]


def test_campaign_tells_rehearsals_apart() -> None:
    assert make_plan(["data=digits"]).folder.name == "table2-digits"
    assert make_plan(["data=digits", "scale=smoke"]).folder.name == "table2-digits-smoke"
    assert make_plan(["data.root=/d", "scale=smoke"]).folder.name == "table2-smoke"
    assert make_plan(["data.root=/d", "scale=rehearsal"]).folder.name == "table2-rehearsal"
    assert make_plan(["data=digits", "scale=paper", "cluster=slurm"]).folder.name == "table2-digits-paper"


def test_planning_twice_changes_nothing(tmp_path: Path) -> None:
    overrides = ["data=digits", f"runs_dir={tmp_path}", "optimizer=adam,adarem"]
    make_plan(overrides).write()
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("config.yaml")}
    assert len(before) == 2
    again = make_plan(overrides)
    assert not any(cell.new for cell in again.cells)
    again.write()
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("config.yaml")} == before


def test_a_changed_config_under_a_known_name_is_refused(tmp_path: Path) -> None:
    overrides = ["data=digits", f"runs_dir={tmp_path}", "optimizer=adam"]
    plan = make_plan(overrides)
    plan.write()
    file = plan.cells[0].run.config_file
    file.write_text(file.read_text().replace("beta1: 0.9", "beta1: 0.8"))
    with pytest.raises(UserError, match=r"planned before with other settings \(optimizer.beta1: 0.8 against 0.9\)"):
        make_plan(overrides)


def test_circumstances_may_change(tmp_path: Path) -> None:
    overrides = ["data=digits", f"runs_dir={tmp_path}", "optimizer=adam"]
    make_plan(overrides).write()
    moved = make_plan([*overrides, "data.root=/elsewhere", "cluster.ranks_per_node=1"])
    moved.write()
    assert moved.cells[0].run.config().data.root == "/elsewhere"


def test_nothing_is_written_when_one_cell_is_bad(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        make_plan(["data=digits", f"runs_dir={tmp_path / 'runs'}", "optimizer.lr=0.1,-0.1"])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["grid=tabel2"], "grid=tabel2: no such file configs/grid/tabel2.yaml; did you mean 'table2'?"),
        (["data=digit"], "data=digit: no such file configs/data/digit.yaml; did you mean 'digits'?"),
        (["data=digits", "modle=resnet18"], "modle: no such key; did you mean 'model'?"),
        (["data=digits", "model=resnet50,resnt18"], "model=resnt18: no such file configs/model/resnt18.yaml"),
        (["data=digits", "model=timm:resnt18"], "model.name=timm:resnt18: unknown model; did you mean"),
        (
            ["data=digits", "optimizer.weight_deacy=0"],
            "optimizer.weight_deacy: no such key (sgdm); did you mean 'weight_decay'?",
        ),
        (["data=digits", "optimizer.momentum=0.8"], "optimizer.momentum: no such key (adam)"),
        (["data=digits", "train.comple=true"], "train.comple: no such key; did you mean 'compile'?"),
        (["data=digits", "+train.extra=1"], "train.extra: no such key"),
        (["data=digits", "~train.compile"], "train.compile: missing"),
        (["data=digits", "seeds=[0,x]"], "seeds=[0, 'x']: needs a list of integers"),
        (["data=digits", "seeds=[1.5]"], "seeds=[1.5]: needs a list of integers"),
        (["data=digits", "seeds=[]"], "seeds=[]: needs at least one seed"),
        (["data=digits", "seeds=[1,1]"], "seeds=[1, 1]: needs at least one seed, and each once"),
        (["data=digits", "optimizer.lr=nan"], "optimizer.lr=nan: needs a finite number"),
        (["data=digits", "optimizer.lr=["], "'optimizer.lr=[': not in Hydra's override grammar"),
        (["lr"], "'lr': not an override"),
        (["data=digits", "seeds=[0]", "seeds=[1]"], "seeds: given twice (seeds=[0] and seeds=[1]); keep one"),
        (["data=digits", "cluster.ranks_per_node=3"], "3 ranks do not divide scale.global_batch_size="),
        (["grid=table2"], "data.root: has no value; name the data set's folder"),
    ],
)
def test_one_line_with_the_nearest_valid_name(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
