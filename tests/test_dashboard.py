"""What wandb shows beyond single runs, with real wandb offline; the workspace up to the request that needs a server."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem import exitcodes
from adarem.dashboard import publish, replay, workspace
from adarem.errors import UserError
from adarem.report import make_report
from adarem.rundir import RunDir
from tests.test_mirror import history, records


@pytest.fixture
def finished(tiny_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> RunDir:
    from adarem import train as train_module
    from adarem.train import train

    class NeverStop:
        signal = None

    monkeypatch.setattr(train_module, "StopRequest", NeverStop)
    run = RunDir(tiny_run("optimizer=adarem", "train.oscillation=true", "train.watched_steps=0"))
    assert train(run.path) == exitcodes.OK
    return run


def test_replay_builds_the_run_from_its_directory_alone(finished: RunDir) -> None:
    folder = finished.path.parent
    assert not list(finished.path.glob("wandb/offline-run-*"))
    assert replay(folder, "offline") == 1
    rows = [r for r in history(finished) if "epoch" in r]
    assert [r["val/top1"] for r in rows if "val/top1" in r] == [
        m["top1"] for m in finished.metrics() if m["split"] == "val"
    ]
    assert [r["oscillation/q_mean"] for r in rows if "oscillation/q_mean" in r] == [
        o["q_mean"] for o in finished.oscillation()
    ]


def test_publish_logs_the_reports_table_and_figures(finished: RunDir, tmp_path: Path) -> None:
    folder = finished.path.parent
    with pytest.raises(UserError, match=r"table2.csv: no such file; `adarem report grid=table2` writes it"):
        publish(folder, tmp_path / "results", "offline")
    make_report(grid="table2", runs_dir=folder.parent, results_dir=tmp_path / "results", data="digits", scale="smoke")
    publish(folder, tmp_path / "results", "offline")
    started = next(r.run for r in records(RunDir(folder)) if r.WhichOneof("record_type") == "run")
    assert (started.job_type, started.run_group) == ("report", folder.name) and "rehearsal" in started.tags
    logged = set()
    for record in records(RunDir(folder)):
        if record.WhichOneof("record_type") == "history":
            logged |= {i.key or "/".join(i.nested_key) for i in record.history.item}
    assert any("table" in key for key in logged) and any("figure4" in key for key in logged)


def test_workspace_lays_the_papers_figures_out(finished: RunDir) -> None:
    view = workspace(finished.path.parent, "someone")
    sent = view._to_model()  # what .save() sends
    text = json.dumps(sent.model_dump(mode="json", by_alias=True))
    for metric in ("train/loss", "val/top1", "oscillation/q_mean", "train/data_wait"):
        assert metric in text
    assert view.name == "REHEARSAL of table2" and finished.path.parent.name in text


def test_nothing_to_replay(tiny_run: Callable[..., Path]) -> None:
    folder = tiny_run().parent
    with pytest.raises(UserError, match="no run there has finished an epoch"):
        replay(folder, "offline")
