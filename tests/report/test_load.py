import json

import numpy as np
import pytest

from adarem.plan.plan import make_plan
from adarem.report import load, provenance
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.reproduction import has_papers_setting
from tests.support.sweeps import diverge, fingerprint, finish, make_config, start, write_epochs, write_grid

COMPLETE_GRID = b"name: table2\nmetrics: [top1]\naxes: {model: [resnet18], optimizer: [sgdm]}\n"


def test_every_state_is_told_apart(dirs):
    folder = write_grid(dirs[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.5)
    diverge(folder, make_config("resnet18", "adam"))
    for optimizer in ("adamw", "adabound", "rmsprop", "adarem"):
        config = make_config("resnet18", optimizer)
        RunDir(folder / config.run_name).freeze(config)
    failed, stopped, running = (RunDir(folder / f"resnet18-{o}-s0") for o in ("adabound", "rmsprop", "adarem"))
    failed.end_attempt(start(failed), "failed", "CUDA out of memory")
    number = start(stopped)
    write_epochs(stopped, 7, 30.0)
    stopped.end_attempt(number, "interrupted")
    start(running, host="elsewhere")
    running.write_progress({"epoch": 12, "epochs": 100})
    states = {r.config.optimizer.name: (r.status, r.state) for r in load.load_sweep(folder).runs}
    assert states == {
        "sgdm": ("done", "failed"), "adam": ("diverged", "div."), "adamw": ("planned", "—"),
        "adabound": ("failed", "failed"), "rmsprop": ("interrupted", "stopped ep 7/100"),
        "adarem": ("running", "ep 12/100"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"top1": None}, "no finite final figure"),
        ({"epochs": 3}, "of epoch 3, the config asks for 100"),
        ({"top1": 71.5}, "result.json has top1 71.5, metrics.jsonl 70.5"),
    ],
)
def test_a_result_that_does_not_fit_is_named_and_never_a_number(dirs, change, words):
    folder = write_grid(dirs[0])
    run = finish(folder, make_config("resnet18", "sgdm"), 70.5)
    run.write_result(run.result() | change)
    read = load.read_run(run.path)
    assert (read.status, read.value("top1")) == ("failed", None)
    assert words in "; ".join(read.problems)


@pytest.mark.parametrize("change", [{"top1": 99.0}, {"top1": float("nan")}, {"commit": "0" * 9}])
def test_a_result_edited_by_hand_is_named_and_never_a_number(dirs, change):
    run = finish(write_grid(dirs[0]), make_config("resnet18", "sgdm"), 70.5)
    run.result_file.write_text(json.dumps(json.loads(run.result_file.read_text()) | change))
    read = load.read_run(run.path)
    assert (read.status, read.value("top1")) == ("failed", None)
    assert "result.json: not as training wrote it (checksum differs)" in "; ".join(read.problems)


def test_another_config_hash_is_told_and_the_figure_kept(dirs):
    """The settings known to a later version change the hash of a file that nobody touched."""
    run = finish(write_grid(dirs[0]), make_config("resnet18", "sgdm"), 70.5)
    run.write_result(run.result() | {"config_hash": "0" * 16})
    read = load.read_run(run.path)
    assert read.value("top1") == 70.5
    assert "does not hash as when it was trained" in "; ".join(read.problems)


@pytest.mark.parametrize(
    "damage", ["result", "metrics", "attempts", "config", "no config", "binary config", "odd types"]
)
def test_damage_is_reported_by_name(dirs, damage):
    folder = write_grid(dirs[0])
    run = finish(folder, make_config("resnet18", "sgdm"), 70.5)
    if damage == "result":
        run.result_file.write_text(run.result_file.read_text()[:40])
    elif damage == "metrics":
        with open(run.metrics_file, "a") as f:
            f.write('{"epoch": 101, "spl')
    elif damage == "attempts":
        run.attempts_file.write_text('{"attempt": "x"}\n[1]\n')
    elif damage == "odd types":
        run.append_metrics({"epoch": "three", "split": 7})
    elif damage == "no config":
        run.config_file.unlink()
    else:
        run.config_file.write_bytes(b"\xff\xfe\x00" if damage == "binary config" else b"grid: [")
    c = load.load_sweep(folder)
    told = c.unreadable + [f"{r.name}: {p}" for r in c.runs for p in r.problems]
    assert len(told) >= 1 and all("resnet18-sgdm-s0" in t for t in told)
    if damage in ("result", "no config", "binary config", "config"):
        assert all(r.value("top1") is None for r in c.runs)


GENUINE = {"train": 1_281_167, "val": 50_000}


@pytest.mark.parametrize(
    ("counts", "evaluated", "words"),
    [
        ({}, 50_000, None),
        ({"train": 1_279_886}, 50_000, None),  # 0.1 % left out by `adarem prepare --skip-bad`
        ({"train": 1_279_885}, 50_000, "ImageNet with 1,279,885 of 1,281,167 training images"),
        ({"train": 1_281_168}, 50_000, "ImageNet with 1,281,168 of 1,281,167 training images"),
        ({"val": 49_999}, 49_999, "ImageNet with 49,999 of 50,000 validation images"),
        ({"train": 20, "val": 8}, 8, "with 20 of 1,281,167 training images and 8 of 50,000 validation images"),
        ({"val": None}, 50_000, "an unknown number of 50,000 validation images"),
        ({}, 49_000, "ImageNet, evaluated on 49,000 of 50,000 validation images"),
        ({}, None, "evaluated on an unknown number of 50,000"),
    ],
)
def test_only_the_complete_genuine_set_is_no_rehearsal(dirs, counts, evaluated, words):
    config = make_config("resnet18", "sgdm")
    run = finish(write_grid(dirs[0]), config, 70.5, epochs=False)
    evaluation = run.result()["evaluation"] | {"images": evaluated}
    run.write_result(run.result() | {"fingerprint": fingerprint(config, GENUINE | counts), "evaluation": evaluation})
    read = load.read_run(run.path)
    assert has_papers_setting(config)
    assert (read.rehearsal is None) if words is None else (words in read.rehearsal)


def test_a_run_without_a_result_is_told_by_what_its_evaluations_counted(dirs):
    folder = write_grid(dirs[0])
    for optimizer, images in (("sgdm", 50_000), ("adam", 8)):
        run = RunDir(folder / f"resnet18-{optimizer}-s0")
        run.freeze(make_config("resnet18", optimizer))
        start(run, host="elsewhere")
        write_epochs(run, 3, 60.0, evaluated=images)
    told = {r.config.optimizer.name: r.rehearsal for r in load.load_sweep(folder).runs}
    assert told["sgdm"] is None and "evaluated on 8 of 50,000" in told["adam"]


def test_one_run_on_other_data_makes_the_campaign_a_rehearsal(dirs, table2_runs):
    assert load.load_sweep(table2_runs).rehearsal is None
    run = RunDir(table2_runs / "resnet18-sgdm-s1")
    run.write_result(run.result() | {"fingerprint": None})
    assert load.load_sweep(table2_runs).rehearsal.endswith("claims (1 of 6 runs)")


def test_text_is_held_to_its_counts_too(dirs):
    """The loader refuses other counts; a result that tells others all the same is no reproduction."""
    plan = make_plan(["grid=table3", "data.root=/d", f"runs_dir={dirs[0]}", "optimizer=sgdm"])
    config = plan.runs[0].config
    run = finish(plan.folder, config, 0.0, epochs=False)
    run.write_result(run.result() | {"perplexity": 70.0})
    assert load.read_run(run.path).rehearsal is None
    counts = {"train": 929_589, "val": 73_760, "test": 82_429}
    run.write_result(run.result() | {"fingerprint": fingerprint(config, counts)})
    assert "Penn Treebank with 82,429 of 82,430 test tokens" in load.read_run(run.path).rehearsal


def test_a_campaign_without_a_readable_run_is_told_by_its_name(dirs):
    assert load.load_sweep(write_grid(dirs[0])).rehearsal is None
    digits = load.load_sweep(write_grid(dirs[0], data="digits", scale="rehearsal"))
    assert digits.rehearsal == "table2-digits holds no readable run"


def without(run, *lost):
    """Takes the records of these (epoch, split) out of metrics.jsonl."""
    records = run.metrics()
    run.metrics_file.write_text("".join(f"{json.dumps(r)}\n" for r in records if (r["epoch"], r["split"]) not in lost))


def test_a_lost_record_makes_the_hours_from_there_on_unknown(dirs):
    run = finish(write_grid(dirs[0]), make_config("resnet18", "sgdm"), 70.5)
    without(run, (60, "train"), (80, "val"), (81, "val"))
    read = load.read_run(run.path)
    assert read.hours[:, 0].tolist() == list(range(1, 101))
    assert read.hours[58, 1:] == pytest.approx([59 * 110 / 3600, 16 * 59 * 110 / 3600])
    assert np.isnan(read.hours[59:, 1:]).all()
    assert np.isnan(read.spent("train")) and np.isnan(read.spent("evaluate"))
    assert read.problems == [
        "metrics.jsonl has no train record of epoch 60; hours from there on are unknown",
        "metrics.jsonl has no val record of epochs 80 to 81; hours from there on are unknown",
    ]
    without(run, *((e, s) for e in range(1, 101) for s in ("train", "val") if e > 50))  # cut in the middle
    read = load.read_run(run.path)
    assert np.isfinite(read.hours[:50]).all() and np.isnan(read.hours[50:, 1]).all() and len(read.hours) == 100


def test_evaluations_that_were_not_due_are_not_lost(dirs):
    config = make_config("resnet18", "sgdm", changed={"train": {"eval_every": 30}})
    run = finish(write_grid(dirs[0]), config, 70.5)
    without(run, *((e, "val") for e in range(1, 101) if e not in (30, 60, 90, 100)))
    read = load.read_run(run.path)
    assert read.problems == [] and read.hours[-1, 1] == pytest.approx((100 * 101 + 4 * 9) / 3600)
    without(run, (60, "val"))
    read = load.read_run(run.path)
    assert np.isfinite(read.hours[58, 1]) and np.isnan(read.hours[59:, 1]).all()


def test_an_evaluation_under_way_is_not_lost(dirs):
    run = RunDir(write_grid(dirs[0]) / "resnet18-sgdm-s0")
    run.freeze(make_config("resnet18", "sgdm"))
    start(run, host="elsewhere")
    write_epochs(run, 3, 60.0)
    without(run, (3, "val"))
    read = load.read_run(run.path)
    assert (read.status, read.problems) == ("running", [])
    assert (read.spent("evaluate"), read.spent("train")) == (18.0, 300.0)
    assert np.isnan(read.hours[2, 1])  # the end of epoch 3 is not reached


def test_an_epoch_beyond_the_runs_last_is_an_unreadable_line(dirs):
    run = finish(write_grid(dirs[0]), make_config("resnet18", "sgdm"), 70.5, epochs=False)
    run.append_metrics({"epoch": 10**12, "split": "train", "loss": 1.0})
    assert "1 unreadable line in metrics.jsonl" in load.read_run(run.path).problems


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("cut", ["1 unreadable line in oscillation.jsonl", "oscillation.jsonl has no window that ends with epoch 10"]),
        ("gone", ["oscillation.jsonl has no window that ends with epoch 10"]),
        ("odd epoch", ["1 unreadable line in oscillation.jsonl"]),
        ("trajectory", ["2 unreadable trajectories in oscillation.jsonl"]),
        ("trajectories", ["1 unreadable trajectory in oscillation.jsonl"]),
    ],
)
def test_damaged_oscillation_is_named(dirs, damage, words):
    folder = write_grid(dirs[0], "figure2", "digits", "rehearsal")
    tracked = {"train": {"oscillation": True}}
    run = finish(folder, make_config("resnet18", "sgd", grid="figure2", data="digits", changed=tracked), 95.0)
    way = {"parameter": "fc.weight[0, 1]", "from_step": 0, "values": [0.0, 1.0]}
    q = {"q_mean": 9.0, "q_median_with_gradient": 8.0}
    for epoch in range(1, 11):
        run.append_oscillation({"epoch": epoch, "step": epoch, **q, "trajectories": [way] * (epoch == 1)})
    (read,) = load.load_sweep(folder).runs
    assert read.problems == [] and read.value("q_mean") == 9.0 and read.trajectories[0].values.tolist() == [0.0, 1.0]
    complete = run.oscillation_file.read_text()
    if damage == "cut":
        run.oscillation_file.write_text(complete[:-20])
    elif damage == "gone":
        run.oscillation_file.write_text("".join(complete.splitlines(keepends=True)[:-1]))
    elif damage == "odd epoch":
        run.append_oscillation({"epoch": "ten"})
    else:
        odd = [{"parameter": "fc"}, way | {"values": [1.0, None]}, way] if damage == "trajectory" else 7
        run.append_oscillation({"epoch": 10, "step": 10, **q, "trajectories": odd})
    (read,) = load.load_sweep(folder).runs
    names = "mean_q_median_with_gradient and mean_q_mean and q_mean"
    lacking = [f"done, but its final {names} cannot be read"] if damage in ("cut", "gone") else []
    assert (read.problems, read.status) == ([*words, *lacking], "done")
    assert read.value("q_mean") == (None if lacking else 9.0)
    told = provenance.problems(load.load_sweep(folder))
    assert [f"figure2-digits/resnet18-sgd-s0: {p}" for p in read.problems] == told


def test_a_finished_run_without_a_figure_of_its_grid_is_named(dirs):
    folder = write_grid(dirs[0])
    run = finish(folder, make_config("resnet18", "sgdm"), 70.5, epochs=False)
    run.write_result(run.result() | {"top5": None})
    (read,) = load.load_sweep(folder).runs
    assert "done, but its final top5 cannot be read" in read.problems and read.value("top1") == 70.5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\x00name", ", line 1: byte 0xff is not UTF-8; save it as UTF-8, or restore it"),
        (b"name: [", "not valid YAML"),
        (b"name: 2024-99-99", "not valid YAML"),
        (b"- table2", "holds no mapping; plan"),
        (COMPLETE_GRID.replace(b"[resnet18]", b"5"), "axes.model=5: needs a list of str; plan the grid again"),
        (COMPLETE_GRID.replace(b"[top1]", b"top1"), "metrics='top1': needs a list"),
        (COMPLETE_GRID + b"labels: {model: [a]}", "labels.model=['a']: needs a mapping"),
        (COMPLETE_GRID + b"seeds: 3", "seeds=3: needs a list"),
        (None, "grid.yaml: a folder and no file; remove it, or put the file itself there"),
    ],
)
def test_a_damaged_grid_file_is_one_line(dirs, content, words):
    file = write_grid(dirs[0]) / "grid.yaml"
    file.unlink()
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(UserError) as e:
        load.load_sweep(file.parent)
    assert words in str(e.value) and str(file) in str(e.value) and "\n" not in str(e.value)


def test_campaigns_are_read_once_and_the_unreadable_named(dirs, table2_runs, monkeypatch):
    bad = write_grid(dirs[0], "table1")
    (bad / "grid.yaml").write_bytes(b"\xff")
    read = []
    monkeypatch.setattr(load, "read_sweep", lambda folder, f=load.read_sweep: read.append(folder) or f(folder))
    sweeps = load.Sweeps(dirs[0])
    assert sweeps.names() == ["table1", "table2"]
    for _ in range(2):
        assert len(sweeps.get("table2").runs) == 6 and sweeps.get("table1") is sweeps.get("nothing") is None
    assert read == [table2_runs, bad, dirs[0] / "nothing"]
    assert sweeps.unreadable == {
        "table1": f"{bad / 'grid.yaml'}, line 1: byte 0xff is not UTF-8; save it as UTF-8, or restore it",
        "nothing": f"{dirs[0] / 'nothing'}: no grid.yaml there; `adarem plan` makes it",
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mean:", "mean: &three"),  # and used in another section
        ("seed: 0", "seed: 3\nseed: 0"),
        ("seed: 0", "seed:\n  0"),
        ("seed: 0", "# a remark\nseed: 0"),
        ("seed: 0", "? seed\n: 0"),
        ("seed: 0", "seed: zero"),
        ("seed: 0", "seed"),
    ],
)
def test_sections_that_were_read_before_make_the_same_config(dirs, old, new):
    run = finish(write_grid(dirs[0]), make_config("resnet18", "sgdm"), 70.5, epochs=False)
    sections = {}
    assert load.read_run(run.path, sections=sections).config == run.config() and len(sections) > 5
    text = run.config_file.read_text().replace(old, new, 1)
    run.config_file.write_text(text.replace("extra: []", "extra: *three") if "three" in new else text)
    try:
        expected = run.config()
    except UserError as e:
        assert load.read_run(run.path, sections=sections) == f"table2/resnet18-sgdm-s0: {e}"
    else:
        assert load.read_run(run.path, sections=sections).config == expected


def test_folders_that_are_no_runs_are_left_alone(dirs):
    folder = write_grid(dirs[0])
    (folder / "slurm").mkdir()
    (folder / "slurm" / "12_0.out").write_text("hello")
    assert load.load_sweep(folder).unreadable == []


def test_finding_the_sweeps(dirs):
    runs = dirs[0]

    def found(*asked):
        return load.Sweeps(runs).matching(*asked)

    with pytest.raises(UserError, match=r"no runs of table2 there; type: adarem launch"):
        found("table2")
    with pytest.raises(UserError, match=r"runs: no runs there; `adarem launch grid=table2 data=digits` makes some"):
        found(None)
    write_grid(runs, data="digits", scale="rehearsal")
    assert found("table2") == ["table2-digits"]
    write_grid(runs, data="digits", scale="smoke")
    write_grid(runs)
    assert found("table2") == found(None) == ["table2", "table2-digits", "table2-digits-smoke"]
    assert found("table2", "digits") == found("table2-digits") == ["table2-digits"]
    assert found("table2", "digits", "smoke") == found("table2-digits-smoke") == ["table2-digits-smoke"]
    assert found("table2", None, "paper") == ["table2"]
    with pytest.raises(UserError, match="no runs of table1"):
        found("table1", "digits")
    with pytest.raises(UserError, match=r"table2-smoke: no runs of table2 there \(there are runs of table2, "):
        found("table2", "imagenet", "smoke")
    (runs / "table2-digits" / "grid.yaml").write_text("[")
    assert "table2-digits" in found("table2")  # by its name, so that the report says what is wrong with it


def test_the_sweeps_of_one_data_set(dirs):
    plans = [make_plan([f"grid={grid}", "data=digits", f"runs_dir={dirs[0]}"]) for grid in ("table1", "table2")]
    for plan in (*plans, make_plan(["grid=table2", "data.root=/d", f"runs_dir={dirs[0]}"])):
        plan.write()
    assert load.Sweeps(dirs[0]).matching(None, "digits") == ["table1-digits", "table2-digits"]
    with pytest.raises(UserError, match="no runs on pydoc there"):
        load.Sweeps(dirs[0]).matching(None, "pydoc")
