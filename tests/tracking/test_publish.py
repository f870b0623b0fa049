"""A report's table and figures in wandb; real wandb, offline."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.tracking.publish import publish
from tests.support.published import REHEARSAL, finished_sweep, report_on
from tests.support.sweeps import write_grid
from tests.support.wandb_files import history, started

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_publish_logs_the_reports_table_and_figures(tmp_path: Path) -> None:
    folder = finished_sweep(tmp_path)
    results = report_on(folder, tmp_path, "digits")
    publish(folder, results, "offline")
    run, run_record = RunDir(folder), started(RunDir(folder))
    assert run_record.display_name == "REHEARSAL of Table 2: table and figures"
    assert (run_record.job_type, run_record.run_group) == ("report", "table2-digits · report")
    assert list(run_record.tags) == ["table2-digits", "rehearsal"] and run_record.notes == f"REHEARSAL: {REHEARSAL}"
    logged = {key.split("/_type")[0] for row in history(run) for key in row if key.endswith("/_type")}
    drawn = {f"figures/{f.stem}" for f in (results / folder.name / "figures").glob("*.png")}
    assert drawn >= {"figures/figure4", "figures/table2-time"}
    assert logged == {"table"} | drawn
    table = json.loads(next(folder.glob("wandb/offline-run-*/files/media/table/*.table.json")).read_text())
    with open(results / folder.name / "table.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert table["columns"] == list(rows[0]) and len(table["data"]) == len(rows) == 12
    adarem = next(dict(zip(table["columns"], r, strict=True)) for r in table["data"] if "adarem" in r and "top1" in r)
    assert (adarem["label"], adarem["paper"], adarem["ours"], adarem["n"]) == ("ResNet-18, AdaRem", 70.67, 71.25, 2.0)
    assert next(r[table["columns"].index("ours")] for r in table["data"] if "adam" in r) is None


def test_publishing_again_is_the_same_run(tmp_path: Path) -> None:
    folder, other = finished_sweep(tmp_path), finished_sweep(tmp_path, data="imagenet")
    ids = []
    for of, chosen in ((folder, "digits"), (folder, "digits"), (other, "imagenet")):
        publish(of, report_on(of, tmp_path / chosen, chosen), "offline")
        ids.append(started(RunDir(of)).run_id)
    assert ids[0] == ids[1] != ids[2]


def test_a_reproduction_carries_no_stamp_of_a_rehearsal(tmp_path: Path) -> None:
    folder = finished_sweep(tmp_path, data="imagenet")
    publish(folder, report_on(folder, tmp_path, "imagenet"), "offline")
    run_record = started(RunDir(folder))
    assert run_record.display_name == "Table 2: table and figures" and run_record.notes == ""
    assert list(run_record.tags) == ["table2"]


def test_publish_refuses_a_sweep_without_a_report(tmp_path: Path) -> None:
    rehearsal, reproduction = finished_sweep(tmp_path), finished_sweep(tmp_path, data="imagenet")
    results = report_on(rehearsal, tmp_path, "digits")
    command = f"adarem report grid=table2 runs_dir={tmp_path / 'runs'} results_dir={results}"
    with pytest.raises(UserError) as raised:
        publish(reproduction, results, "offline")
    assert str(raised.value) == f"{results / 'table2/manifest.json'}: no such file; `{command}` writes it"
    assert not (reproduction / "wandb").exists()


def test_publish_refuses_the_report_of_another_sweep(tmp_path: Path) -> None:
    folder = finished_sweep(tmp_path)
    results = report_on(folder, tmp_path, "digits")
    (results / folder.name).rename(results / "table2")
    with pytest.raises(UserError, match="manifest.json: the report of table2-digits, not of table2; rerun `adarem rep"):
        publish(finished_sweep(tmp_path, data="imagenet"), results, "offline")


def test_publish_sends_no_file_from_outside_of_the_results(tmp_path: Path) -> None:
    folder = finished_sweep(tmp_path)
    results = report_on(folder, tmp_path, "digits")
    path = results / folder.name / "manifest.json"
    path.write_text(path.read_text().replace("figures/figure4.png", "../../secret.png"))
    with pytest.raises(UserError, match="manifest.json: files: '../../secret.png': not inside of its folder"):
        publish(folder, results, "offline")


def test_publish_needs_the_complete_report(tmp_path: Path) -> None:
    folder, results = finished_sweep(tmp_path), tmp_path / "results"
    with pytest.raises(UserError, match=r"manifest.json: no such file; `adarem report grid=table2-digits .*` writes"):
        publish(folder, results, "offline")
    report_on(folder, tmp_path, "digits")
    path = results / folder.name / "table.csv"
    text = path.read_text()
    for damaged, expected in (
        (text.splitlines()[0] + "\n", "holds no cell"),
        (text.rstrip()[:-60] + "\n", "not a table as the report writes it"),
        (text.replace("71.2500", "71.x5"), "not a table as the report writes it"),
    ):
        path.write_text(damaged)
        with pytest.raises(UserError, match=expected):
            publish(folder, results, "offline")
    path.write_text(text)
    (results / folder.name / "figures" / "figure4.png").unlink()
    with pytest.raises(UserError, match=r"figure4.png: no such file; `adarem report .*` draws it"):
        publish(folder, results, "offline")


def test_an_empty_sweep_is_a_mistake_in_one_line(tmp_path: Path) -> None:
    folder = write_grid(tmp_path / "runs")
    with pytest.raises(UserError, match="table2: no run there, or none whose config.yaml can be read"):
        publish(folder, tmp_path, "offline")


def test_online_without_a_key_is_one_line(tmp_path: Path, adarem_command: Command) -> None:
    folder = finished_sweep(tmp_path)
    for action in ("replay", "publish"):
        report_on(folder, tmp_path, "digits")
        words = ["--mode=online", *([f"--results-dir={tmp_path / 'results'}"] if action == "publish" else [])]
        done = adarem_command("wandb", action, str(folder), *words, HOME=str(tmp_path), WANDB_MODE="online")
        assert done.returncode == exitcodes.USER_ERROR
        assert "`wandb login` stores a key" in done.stderr and len(done.stderr.strip().splitlines()) == 1
