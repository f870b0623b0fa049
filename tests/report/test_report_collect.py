import json
import os

import pytest
from report_factory import diverge, finish, make_config, start, write_epochs, write_grid

from adarem.errors import UserError
from adarem.report import collect, runs_csv
from adarem.rundir import RunDir


def test_every_state_is_told_apart(dirs):
    folder = write_grid(dirs[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.5)
    diverge(folder, make_config("resnet18", "adam"))
    for optimizer in ("adamw", "adabound", "rmsprop", "adarem"):
        config = make_config("resnet18", optimizer)
        RunDir(folder / config.cell).freeze(config)
    failed, stopped, running = (RunDir(folder / f"resnet18-{o}-s0") for o in ("adabound", "rmsprop", "adarem"))
    failed.end_attempt(start(failed), "failed", "CUDA out of memory")
    number = start(stopped)
    write_epochs(stopped, 7, 30.0)
    stopped.end_attempt(number, "interrupted")
    start(running, host="elsewhere")
    running.write_progress({"epoch": 12, "epochs": 100})
    states = {r.config.optimizer.name: (r.status, r.state) for r in collect.read_runs(folder).runs}
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
    read = collect.read_run(run.path)
    assert (read.status, read.value("top1")) == ("failed", None)
    assert words in "; ".join(read.problems)


@pytest.mark.parametrize("change", [{"top1": 99.0}, {"top1": float("nan")}, {"commit": "0" * 9}])
def test_a_result_edited_by_hand_is_named_and_never_a_number(dirs, change):
    run = finish(write_grid(dirs[0]), make_config("resnet18", "sgdm"), 70.5)
    run.result_file.write_text(json.dumps(json.loads(run.result_file.read_text()) | change))
    read = collect.read_run(run.path)
    assert (read.status, read.value("top1")) == ("failed", None)
    assert "result.json: not as training wrote it (checksum differs)" in "; ".join(read.problems)


def test_another_config_hash_is_told_and_the_figure_kept(dirs):
    """The settings known to a later version change the hash of a file that nobody touched."""
    run = finish(write_grid(dirs[0]), make_config("resnet18", "sgdm"), 70.5)
    run.write_result(run.result() | {"config_hash": "0" * 16})
    read = collect.read_run(run.path)
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
    c = collect.read_runs(folder)
    told = c.unreadable + [f"{r.name}: {p}" for r in c.runs for p in r.problems]
    assert len(told) >= 1 and all("resnet18-sgdm-s0" in t for t in told)
    if damage in ("result", "no config", "binary config", "config"):
        assert all(r.value("top1") is None for r in c.runs)


def test_folders_that_are_no_runs_are_left_alone(dirs):
    folder = write_grid(dirs[0])
    (folder / "slurm").mkdir()
    (folder / "slurm" / "12_0.out").write_text("hello")
    assert collect.read_runs(folder).unreadable == []


def test_finding_the_campaign(dirs):
    runs = dirs[0]
    with pytest.raises(UserError, match=r"no runs of table2 there; type: make reproduce-table2, or adarem launch"):
        collect.find_campaign("table2", runs, None)
    digits = write_grid(runs, data="digits", scale="rehearsal")
    assert collect.find_campaign("table2", runs, None) == (digits, "")
    smoke = write_grid(runs, data="digits", scale="smoke")
    with pytest.raises(UserError, match="table2-digits and table2-digits-smoke"):
        collect.find_campaign("table2", runs, None)
    whole = write_grid(runs)
    folder, note = collect.find_campaign("table2", runs, None)
    assert folder == whole and "table2-digits" in note
    assert collect.find_campaign("table2", runs, "digits")[0] == digits
    assert collect.find_campaign("table2-digits-smoke", runs, None)[0] == smoke
    with pytest.raises(UserError, match="no runs of table1"):
        collect.find_campaign("table1", runs, "digits")


def test_runs_csv_keeps_and_refreshes_other_campaigns(dirs):
    import pandas as pd

    runs, results = dirs
    one = write_grid(runs)
    finish(one, make_config("resnet18", "sgdm"), 70.5)
    two = write_grid(runs, "table1", "digits", "rehearsal")
    late = make_config("resnet50", "sgdm", grid="table1", data="digits")
    RunDir(two / late.cell).freeze(late)
    path = results / "runs.csv"
    runs_csv.update_runs_csv(path, collect.read_runs(one), runs)
    runs_csv.update_runs_csv(path, collect.read_runs(two), runs)

    def status():
        frame = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("run")
        return frame, frame["status"].to_dict()

    assert status()[1] == {"table1-digits/resnet50-sgdm-s0": "planned", "table2/resnet18-sgdm-s0": "done"}
    finish(two, late, 91.0)
    runs_csv.update_runs_csv(path, collect.read_runs(one), runs)  # a report on the other grid
    assert status()[1]["table1-digits/resnet50-sgdm-s0"] == "done"
    os.rename(two, two.with_name("gone"))
    runs_csv.update_runs_csv(path, collect.read_runs(one), runs)
    frame, _ = status()
    row = frame.loc["table1-digits/resnet50-sgdm-s0"]
    assert (row["top1"], row["optimizer.lr"], row["data.name"], row["scale.epochs"]) == (
        "91",
        "0.4",
        "digits",
        f"{late.scale.epochs}",
    )
    assert row["rehearsal"] and not frame.loc["table2/resnet18-sgdm-s0"]["rehearsal"]
    assert "/data" not in path.read_text()  # no machine's paths in a committed file
