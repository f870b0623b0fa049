"""runs.csv of a sweep."""

import csv
import io

from adarem.report.load import load_sweep
from adarem.report.tables import runs as runs_csv
from adarem.run.directory import RunDir
from tests.support.sweeps import diverge, finish, make_config, write_grid


def test_one_row_per_run_and_one_column_per_setting(dirs):
    folder = write_grid(dirs[0], "table1", "digits", "rehearsal")
    finish(folder, make_config("resnet50", "sgdm", grid="table1", data="digits"), 91.0)
    diverge(folder, make_config("resnet18", "adarem_s", grid="table1", data="digits"))
    planned = make_config("resnet50", "adarem_s", grid="table1", data="digits")
    RunDir(folder / planned.run_name).freeze(planned)
    text = runs_csv.to_csv(load_sweep(folder).runs)
    rows = {row["run"].partition("/")[2]: row for row in csv.DictReader(io.StringIO(text))}
    assert list(rows) == sorted(rows)
    assert {name: row["status"] for name, row in rows.items()} == {
        "resnet18-adarem_s-s0": "diverged", "resnet50-adarem_s-s0": "planned", "resnet50-sgdm-s0": "done",
    }  # fmt: skip
    row = rows["resnet50-sgdm-s0"]
    kept = [row[key] for key in ("campaign", "top1", "optimizer.lr", "data.name", "scale.epochs", "attempts", "commit")]
    assert kept == ["table1-digits", "91", "0.4", "digits", f"{planned.scale.epochs}", "1", "c0ffee0123"]
    assert "embedded digits" in row["rehearsal"]
    # settings of one optimizer alone are empty in the rows of another
    assert row["optimizer.momentum"] and not rows["resnet18-adarem_s-s0"]["optimizer.momentum"]
    assert "/data" not in text  # no machine's paths in a committed file
