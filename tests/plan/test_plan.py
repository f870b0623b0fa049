"""Grids become run directories: named, checked, idempotent."""

import shutil
import threading
from pathlib import Path

import pytest

from adarem.launch.commands import report_arguments
from adarem.plan import plan as planning
from adarem.plan.plan import make_plan
from adarem.report.load import Sweeps
from adarem.resources import shipped_configs
from adarem.run.config import TextConfig, from_dict, to_dict
from adarem.run.errors import UserError
from adarem.run.reproduction import has_papers_setting
from adarem.run.sweep import SweepSpec, read_sweep, write_sweep
from adarem.run.text_models import LstmConfig


def names(overrides: list[str]) -> list[str]:
    return [cell.config.run_name for cell in make_plan(overrides).runs]


def test_table2_is_the_papers() -> None:
    plan = make_plan(["grid=table2", "data.root=/data/imagenet"])
    assert plan.folder.name == "table2"
    rates = {c.config.optimizer.name: c.config.optimizer.lr for c in plan.runs}
    # Section 4.1.1: 0.4 for SGD and AdaRem, 0.004 for Adam, AdamW, AdaBound, 0.0001 for RMSProp
    assert rates == {"sgdm": 0.4, "adam": 0.004, "adamw": 0.004, "adabound": 0.004, "rmsprop": 1e-4, "adarem": 0.4}
    for cell in plan.runs:
        c = cell.config
        assert (c.scale.epochs, c.scale.global_batch_size, c.cluster.world_size) == (100, 1024, 16)
        assert (c.schedule.name, c.schedule.warmup_epochs, c.scale.lr_factor) == ("cosine", 0, 1.0)
        assert c.data.beton_dir == "/data/imagenet/ffcv"
    assert plan.runs[-1].config.optimizer.hparams["lam"] == 0.999


def test_table1_is_the_papers() -> None:
    plan = make_plan(["grid=table1", "data.root=/data/imagenet"])
    assert len(plan.runs) == 12
    assert {c.config.optimizer.label for c in plan.runs} == {"SGDM", "AdaRem-S"}
    assert len({c.config.model.label for c in plan.runs}) == 6


def test_table3_is_the_papers(tmp_path: Path) -> None:
    plan = make_plan(["grid=table3", "data.root=/data/ptb", f"runs_dir={tmp_path}"])
    assert plan.folder.name == "table3"
    assert [c.config.run_name for c in plan.runs] == ["awd_lstm-sgdm-s0", "awd_lstm-adam-s0", "awd_lstm-adarem-s0"]
    for cell in plan.runs:
        c = cell.config
        assert has_papers_setting(c)
        assert (c.schedule.name, c.schedule.milestones, c.schedule.gamma, c.scale.epochs) == ("step", (50,), 0.1, 100)
        assert isinstance(c.data, TextConfig) and isinstance(c.model, LstmConfig)
        assert (c.model.layers, c.model.hidden, c.model.embedding, c.model.clip) == (3, 1150, 400, 0.25)
        assert c.model.average_after == 0 and c.optimizer.weight_decay == 1.2e-6
        assert from_dict(to_dict(c)) == c
    pydoc = make_plan(["grid=table3", "data=pydoc", f"runs_dir={tmp_path}"])
    assert pydoc.folder.name == "table3-pydoc"
    assert all(c.standing.kind == "rehearsal" and c.config.model.hidden == 200 for c in pydoc.runs)
    for changed in ("model.hidden=1000", "data.expected_val=null", "scale.epochs=50", "scale.global_batch_size=40"):
        assert make_plan(["grid=table3", "data.root=/d", changed, f"runs_dir={tmp_path}"]).runs[0].standing.rehearsal


def test_every_optimizer_and_model_file_composes() -> None:
    optimizers = sorted(p.stem for p in (shipped_configs() / "optimizer").glob("*.yaml"))
    models = sorted(p.stem for p in (shipped_configs() / "model").glob("*.yaml") if p.stem not in ("awd_lstm", "gpt"))
    for count, axes in (
        (len(optimizers), [f"optimizer={','.join(optimizers)}", "model=resnet18"]),
        (len(models), ["optimizer=adarem", f"model={','.join(models)}"]),
    ):
        assert len(make_plan(["data=digits", *axes]).runs) == count
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


def test_a_trial_stays_out_of_the_papers_folder(tmp_path: Path) -> None:
    """One shorter run in runs/table2 would make a rehearsal of the complete table."""
    runs = f"runs_dir={tmp_path}"
    paper = ["data.root=/d", runs, "optimizer=sgdm,adarem"]
    trial = make_plan([*paper, "scale.epochs=30"])
    assert (trial.folder.name, trial.spec.scale) == ("table2-trial", "trial")
    assert "REHEARSAL: ImageNet, 30 epochs" in trial.describe()
    mixed = make_plan([*paper, "scale.epochs=100,30"])
    assert mixed.folder.name == "table2-trial" and "REHEARSAL: ImageNet, 30 epochs" in mixed.describe()
    assert make_plan([*paper, "scale.global_batch_size=512"]).folder.name == "table2-trial"
    assert make_plan(["grid=table3", "data.root=/d", runs, "model.hidden=200"]).folder.name == "table3-trial"
    assert make_plan([*paper, "optimizer.weight_decay=5e-4"]).folder.name == "table2"
    assert make_plan([*paper, "scale=smoke"]).folder.name == "table2-smoke"
    assert make_plan(["data=digits", runs, "scale.epochs=3"]).folder.name == "table2-digits"
    for plan in (trial, make_plan(paper)):
        plan.write()
        asked = dict(word.split("=") for word in report_arguments(plan))
        assert Sweeps(tmp_path).matching(asked["grid"], asked["data"], asked["scale"]) == [plan.folder.name]


def test_a_trial_takes_no_settings_of_the_papers_search(tmp_path: Path) -> None:
    overrides = ["grid=table3", "grid.settings_from=table3_search", "data.root=/d", f"runs_dir={tmp_path}"]
    for scale, folder in (([], "table3_search"), (["scale.epochs=3"], "table3_search-trial")):
        with pytest.raises(UserError, match=f"{folder}/selected.yaml: no such file"):
            make_plan([*overrides, *scale])


def test_one_value_replaces_a_grids_axis() -> None:
    axis = ["data=digits", "optimizer=adam", "+grid.axes={optimizer.lr: [0.1, 0.2]}"]
    assert names(axis) == ["resnet18-adam-lr=0.1-s0", "resnet18-adam-lr=0.2-s0"]
    (cell,) = make_plan([*axis, "optimizer.lr=0.3"]).runs
    assert (cell.config.run_name, cell.config.optimizer.lr) == ("resnet18-adam-lr=0.3-s0", 0.3)


def test_keys_of_the_grid_stay_out_of_names() -> None:
    given = ["+grid.overrides={a: {optimizer.lr: 0.5}}", "+grid.settings=['train.compile=true']", "~grid.figure"]
    (cell,) = make_plan(["data=digits", "optimizer=adam", *given]).runs
    assert cell.config.run_name == "resnet18-adam-lr=0.5-s0" and cell.config.train.compile


DAMAGED = {
    "not YAML": ("axes: [1\nb: 2\n", "configs/grid/table2.yaml: not valid YAML at line 2 (expected ',' or ']'"),
    "a key twice": (
        "name: a\nname: b\n",
        "configs/grid/table2.yaml: not valid YAML at line 2 (found duplicate key name)",
    ),
    "code": (
        "!!python/object/apply:os.system ['touch hacked']\n",
        "configs/grid/table2.yaml: not valid YAML at line 1 (could not determine a constructor",
    ),
    "not text": (b"\xff\xfe\x00", "configs/grid/table2.yaml: cannot be read ('utf-8' codec can't decode"),
    "half an interpolation": ("name: ${x\n", "configs/grid/table2.yaml: cannot be read (no viable alternative"),
    "a link to nowhere": (None, "configs/grid/table2.yaml: cannot be read (No such file or directory)"),
    "empty": ("", "grid.name: missing"),
    "a list": ("- a\n", "configs/grid/table2.yaml: needs a mapping"),
    "defaults of no kind": ("defaults: 3\n", "Invalid defaults list in 'grid/table2', defaults must be a list"),
    "a file that is not there": ("defaults: [nowhere]\n", "In 'grid/table2': Could not load 'grid/nowhere'"),
}


@pytest.mark.parametrize(
    "group", ["grid/table2", "optimizer/sgdm", "optimizer/adabound", "model/resnet18", "data/digits"]
)
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_of_configs(group: str, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(shipped_configs(), tmp_path / "configs")
    monkeypatch.setenv("ADAREM_CONFIGS", str(tmp_path / "configs"))
    content, message = DAMAGED[damage]
    file = tmp_path / "configs" / f"{group}.yaml"
    file.unlink()
    file.symlink_to("nowhere") if content is None else file.write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    with pytest.raises(UserError) as caught:
        make_plan(["data=digits", "optimizer=sgdm,adabound", f"runs_dir={tmp_path / 'runs'}"])
    assert "\n" not in str(caught.value)
    where = message.replace("grid/table2", group).replace("'grid/nowhere'", f"'{group.split('/')[0]}/nowhere'")
    assert where in str(caught.value) or damage in ("empty", "a list"), caught.value
    assert not (tmp_path / "runs").exists()


def test_planning_twice_changes_nothing(tmp_path: Path) -> None:
    overrides = ["data=digits", f"runs_dir={tmp_path}", "optimizer=adam,adarem"]
    make_plan(overrides).write()
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("config.yaml")}
    assert len(before) == 2
    again = make_plan(overrides)
    assert not any(cell.new for cell in again.runs)
    again.write()
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("config.yaml")} == before


def test_a_part_of_a_grid_never_narrows_its_sweep(tmp_path: Path) -> None:
    """Neither optimizers nor seeds, whatever the order in which they are asked for; columns keep the grid's order."""
    common = ["data=digits", f"runs_dir={tmp_path}"]
    make_plan([*common, "optimizer=adarem,sgdm", "seeds=[1,0]"]).write()
    make_plan([*common, "optimizer=adam", "seeds=[0]"]).write()
    plan = make_plan([*common, "optimizer=sgdm", "seeds=[0]"])
    plan.write()
    spec = read_sweep(plan.folder)
    assert spec.optimizers == ("sgdm", "adam", "adarem") and spec.seeds == (0, 1)
    assert len(spec.runs) == 5 and [p.run.path.name for p in plan.runs] == ["resnet18-sgdm-s0"]
    (plan.folder / "grid.yaml").write_text("[")  # damaged: planned anew, and what is there stays known
    plan.write()
    assert sorted(read_sweep(plan.folder).runs) == sorted(spec.runs)


def test_two_plans_at_once_of_one_sweep_keep_each_others_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, which has read grid.yaml and not written it yet."""
    first, second = (make_plan(["data=digits", f"optimizer={o}", f"runs_dir={tmp_path}"]) for o in ("sgdm", "adam"))
    waiting = threading.Thread(target=second.write)

    def slowly(folder: Path, spec: SweepSpec) -> None:
        monkeypatch.undo()
        waiting.start()
        waiting.join(0.5)
        write_sweep(folder, spec)

    monkeypatch.setattr(planning, "write_sweep", slowly)
    first.write()
    waiting.join()
    assert set(read_sweep(first.folder).runs) == {"resnet18-sgdm-s0", "resnet18-adam-s0"}


def test_what_a_grid_compares_is_on_its_axis() -> None:
    assert make_plan(["data=digits", "grid.compare=[adam]", "optimizer=sgdm"]).spec.compare == ("adam",)  # of a part
    with pytest.raises(
        UserError, match=r"^grid.compare=\['adm'\]: adm: no optimizer of its axis; did you mean 'adam'\?$"
    ):
        make_plan(["data=digits", "grid.compare=[adm]"])


def test_a_changed_config_under_a_known_name_is_refused(tmp_path: Path) -> None:
    overrides = ["data=digits", f"runs_dir={tmp_path}", "optimizer=adam"]
    plan = make_plan(overrides)
    plan.write()
    file = plan.runs[0].run.config_file
    file.write_text(file.read_text().replace("beta1: 0.9", "beta1: 0.8"))
    with pytest.raises(UserError, match=r"planned before with other settings \(optimizer.beta1: 0.8 against 0.9\)"):
        make_plan(overrides)


def test_circumstances_may_change(tmp_path: Path) -> None:
    overrides = ["data=digits", f"runs_dir={tmp_path}", "optimizer=adam"]
    make_plan(overrides).write()
    moved = make_plan([*overrides, "data.root=/elsewhere", "cluster.ranks_per_node=1"])
    moved.write()
    assert moved.runs[0].run.config().data.root == "/elsewhere"


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
        (
            ["data=digits", "train.clip_grad_nrom=1"],
            "train.clip_grad_nrom: no such key; did you mean 'clip_grad_norm'?",
        ),
        (["data=digits", "train.comple=true"], "train.comple: no such key; did you mean 'compile'?"),
        (["data=digits", "optimizer.schedule.name=step"], "for all optimizers alike: schedule.name=..."),
        (["data=digits", "optimizer.clip_grad_norm=1"], "for all optimizers alike: train.clip_grad_norm=..."),
        (["data=digits", "+train.extra=1"], "train.extra: no such key"),
        (["data=digits", "~train.compile"], "train.compile: missing"),
        (["data=digits", "seeds=[0,x]"], "seeds=[0, 'x']: needs a list of integers"),
        (["data=digits", "seeds=[1.5]"], "seeds=[1.5]: needs a list of integers"),
        (["data=digits", "seeds=[]"], "seeds=[]: needs at least one seed"),
        (["data=digits", "seeds=[1,1]"], "seeds=[1, 1]: needs at least one seed, and each once"),
        (["data=digits", "optimizer.lr=nan"], "optimizer.lr=nan: needs a finite number"),
        (["data=digits", "optimizer.lr=["], "'optimizer.lr=[': not in Hydra's override grammar"),
        (["data=digits", "data.root=my (2)"], "quote special characters: 'data.root=\"my (2)\"'"),
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


def test_a_plan_says_what_its_runs_count_as(tmp_path: Path) -> None:
    paper = ["data.root=/d", "optimizer=adam", f"runs_dir={tmp_path}"]

    def shown(*more: str) -> tuple[str, str]:
        plan = make_plan([*paper, *more])
        return plan.runs[0].standing.kind, plan.describe()

    assert shown()[0] == "reproduction"
    kind, text = shown("optimizer.lr=0.1")
    assert kind == "variation"
    assert "variation: another setting than the paper's: lr 0.1 (the paper states 0.004)\n" in text
    kind, text = shown("scale.epochs=3")
    assert kind == "rehearsal" and "REHEARSAL: ImageNet, 3 epochs" in text
    kind, text = shown("scale.epochs=3", "grid.name=mine", "grid.paper=null")
    assert kind == "study" and "REHEARSAL" not in text


def test_data_of_a_name_that_the_catalog_does_not_know(tmp_path: Path) -> None:
    plan = make_plan(["data=digits", "data.name=mine", f"runs_dir={tmp_path}"])
    data = plan.runs[0].config.data
    assert (data.label, data.expected_train, data.expected_val) == ("mine", None, None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["grid=table3"], "data.root: has no value; name the data set's folder, data.root=/data/ptb, or take data=py"),
        (["grid=table3", "data=digits"], "model.name=awd_lstm reads text, data.name=digits is images; take data=ptb"),
        (["data=pydoc"], "model.name=resnet18 reads images, data.name=pydoc is text; take model=awd_lstm"),
        (["grid=table3", "data=pydoc", "data.vocabluary=9"], "data.vocabluary: no such key; did you mean 'vocabulary'"),
        (["grid=table3", "data=pydoc", "data.kind=txt"], "data.kind=txt: did you mean 'text'?"),
        (["grid=table3", "data=pydoc", "model.dropout.inputs=0"], "model.dropout.inputs: no such key; did you mean"),
        (["grid=table3", "data=pydoc", "model.dropout.input=1.0"], "model.dropout.input=1.0: needs 0 or more, below 1"),
        (["grid=table3", "data=pydoc", "model.clip=-1"], "model.clip=-1.0: needs 0 or more"),
        (["grid=table3", "data=pydoc", "model.bptt=0"], "model.bptt=0: needs 1 or more"),
        (["grid=table3", "data=pydoc", "model.bptt_least=99"], "model.bptt_least=99: larger than model.bptt=35"),
        (["grid=table3", "data=pydoc", "train.label_smoothing=0.1"], "train.label_smoothing=0.1: awd_lstm takes none"),
        (["grid=table3", "data=pydoc", "cluster.ranks_per_node=3"], "3 ranks do not divide scale.global_batch_size=20"),
    ],
)
def test_one_line_names_the_key_of_a_text_or_a_language_model(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)
