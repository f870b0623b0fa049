"""The wandb mirror: complete, one run a cell, and never in training's way. Real wandb, offline."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adarem.plan.plan import make_plan
from adarem.report import labels
from adarem.report.load import read_run
from adarem.run import exitcodes
from adarem.run.catalog import OPTIMIZERS
from adarem.run.directory import RunDir
from adarem.run.labels import readable, shortened
from adarem.tracking import sync as mirror
from adarem.tracking.sync import describe, rows, run_id
from tests.support.sweeps import diverge, finish, make_config, write_grid
from tests.support.training import StopAtStep


def records(run: RunDir) -> Iterator[object]:
    """The records of the newest offline run: protobufs in LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    newest = max(run.path.glob("wandb/offline-run-*"), key=lambda p: p.stat().st_mtime)
    data = next(newest.glob("run-*.wandb")).read_bytes()
    block, position, parts = 32768, 7, b""  # the file begins with a header of 7 bytes
    while position + 7 <= len(data):
        if block - position % block < 7:
            position += block - position % block
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def started(run: RunDir) -> Any:
    return next(r.run for r in records(run) if r.WhichOneof("record_type") == "run")


def summary(run: RunDir) -> dict[str, Any]:
    """What the run's summary ends as; keys that wandb makes itself and dicts of its aggregates included."""
    found = {}
    for record in records(run):
        if record.WhichOneof("record_type") == "summary":
            found |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
    return found


def definitions(run: RunDir) -> dict[str, tuple[str, set[str]]]:
    """Metric or pattern to its step metric and what of it goes into the summary."""
    found = {}
    for record in records(run):
        if record.WhichOneof("record_type") == "metric":
            m = record.metric
            found[m.name or m.glob_name] = (m.step_metric, {f.name for f, on in m.summary.ListFields() if on})
    return found


def history(run: RunDir) -> list[dict]:
    rows = []
    for record in records(run):
        if record.WhichOneof("record_type") == "history":
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item})
    return rows


def test_an_offline_run_holds_everything_also_after_an_interruption(
    tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    run = RunDir(tiny_run("wandb.mode=offline", "optimizer=adarem"))
    config = run.config()
    assert run_here(run.path, StopAtStep(6, "SIGTERM")) == exitcodes.REQUEUE
    assert run_here(run.path) == exitcodes.OK
    run_record = started(run)
    assert run_record.run_id == run_id(run, config)
    cell = "ShuffleNetV2-0.5 · AdaRem (global batch size 288)"
    assert run_record.display_name == f"{cell} · seed 0"
    assert (run_record.run_group, run_record.job_type) == (f"table2-digits-smoke · {cell}", "train")
    assert set(run_record.tags) == {
        "table2-digits-smoke", "AdaRem", "ShuffleNetV2-0.5", "embedded digits", "rehearsal"
    }  # fmt: skip
    assert run_record.notes.startswith("REHEARSAL: embedded digits, 2 epochs")
    assert run_record.project == "adarem"
    settings = {i.key: json.loads(i.value_json) for i in run_record.config.update}
    assert settings["optimizer"]["lam"] == 0.999 and settings["cell"] == config.run_name == run.path.name
    assert (settings["campaign"], settings["table_cell"]) == ("table2-digits-smoke", cell)
    # the newest run alone tells the whole story, from the first epoch on
    epochs = [row for row in history(run) if "epoch" in row]
    of = {split: [r for r in epochs if f"{split}/loss" in r] for split in ("train", "val")}
    for split in ("train", "val"):
        truth = [m for m in run.metrics() if m["split"] == split]
        assert [r["epoch"] for r in of[split]] == [m["epoch"] for m in truth] == [1, 2]
        assert [r[f"{split}/loss"] for r in of[split]] == [m["loss"] for m in truth]
    assert [r["ShuffleNetV2_0_5/test_error"] for r in of["val"]] == [100 - r["val/top1"] for r in of["val"]]
    assert summary(run)["top1"] == run.result()["top1"] and summary(run)["status"] == "done"


def test_names_and_groups_read_like_the_table(tmp_path: Path) -> None:
    """One group a cell of the table, whatever its seeds; the grid's own words for settings."""
    make_plan(["grid=lambda", "data=digits", "seeds=[0,1]", f"runs_dir={tmp_path}"]).write()
    folder = tmp_path / "lambda-digits"
    shown = {p.name: describe(RunDir(p), RunDir(p).config()) for p in folder.iterdir() if p.is_dir()}
    own, decaying = shown["resnet18-adarem-s1"], shown["resnet18-adarem-lam=1.0-s0"]
    assert own["name"] == "ResNet-18 · AdaRem (λ 0.999 once an epoch) · seed 1"
    assert decaying["name"] == "ResNet-18 · AdaRem (λ 1, never decaying) · seed 0"
    assert decaying["group"] == "lambda-digits · ResNet-18 · AdaRem (λ 1, never decaying)"
    assert decaying["group"] == shown["resnet18-adarem-lam=1.0-s1"]["group"] != own["group"]
    assert len({s["group"] for s in shown.values()}) == len({s["config"]["table_cell"] for s in shown.values()}) == 5
    assert {s["config"]["cell"] for s in shown.values()} == set(shown)  # each run is found by its directory's name
    (folder / "grid.yaml").write_text("{")
    run = RunDir(folder / "resnet18-adarem-lam=1.0-s0")
    assert describe(run, run.config())["name"] == "ResNet-18 · AdaRem (λ 1.0) · seed 0"


def test_settings_are_in_the_reports_words() -> None:
    for of_one in OPTIMIZERS.values():
        settings = {f"optimizer.{k}": 0.5 for k in (*of_one.hparams, "weight_decay")}
        assert readable(settings) == labels.readable(settings)
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
        assert len(s["name"]) <= 128 and s["name"].endswith(" · seed 12")
        assert len(s["group"]) <= 128 and max(map(len, s["tags"])) <= 64
    assert shown[0]["group"] != shown[1]["group"] and shown[0]["name"] != shown[1]["name"]
    assert shortened("ResNet-18", 128) == "ResNet-18"


def replayed(run: RunDir) -> RunDir:
    import wandb

    mirror.mirror(run, follow=False, mode="offline")
    wandb.teardown()
    return run


def test_metrics_are_defined_on_the_epoch_and_the_summary_keeps_the_best_and_the_last(tmp_path: Path) -> None:
    folder = write_grid(tmp_path)
    run = replayed(finish(folder, make_config("resnet18", "adarem"), 70.5))
    assert definitions(run) == {
        "epoch": ("", set()),
        "hours": ("", set()),
        "device_hours": ("", set()),
        "train/*": ("epoch", {"last"}),
        "val/*": ("epoch", {"last"}),
        "oscillation/*": ("epoch", {"last"}),
        "train/loss": ("epoch", {"min", "last"}),
        "val/loss": ("epoch", {"min", "last"}),
        "val/top1": ("epoch", {"max", "last"}),
        "val/top5": ("epoch", {"max", "last"}),
        "val/perplexity": ("epoch", {"min", "last"}),
        "ResNet_18/*": ("epoch", {"none"}),
        "live/*": ("", {"none"}),
    }
    found, val = summary(run), [m for m in run.metrics() if m["split"] == "val"]
    assert found["val/top1"] == {"max": max(m["top1"] for m in val), "last": val[-1]["top1"]}
    assert found["val/loss"] == {"min": min(m["loss"] for m in val), "last": val[-1]["loss"]}
    assert found["train/lr"] == {"last": 0.1} and found["epoch"] == 100
    assert not any(k.startswith("ResNet_18/") for k in found)


def own_summary(run: RunDir) -> dict[str, Any]:
    """The figures of the run, without what wandb aggregates and counts itself."""
    automatic = ("train/", "val/", "oscillation/", "_")
    return {
        k: v
        for k, v in summary(run).items()
        if not k.startswith(automatic) and k not in ("epoch", "hours", "device_hours")
    }


def test_the_summary_of_a_finished_run(tmp_path: Path) -> None:
    config = make_config("resnet18", "adarem", changed={"train": {"oscillation": True}})
    run = finish(write_grid(tmp_path), config, 70.5)
    for epoch, q in ((99, 3.0), (100, 2.0)):
        run.append_oscillation(
            {"epoch": epoch, "step": 1251 * epoch, "q_mean": q, "q_median_with_gradient": q / 2, "trajectories": [1]}
        )
    result = run.result()
    run.write_result(result | {"gpu_hours": 48.9})
    replayed(run)
    val = [m for m in run.metrics() if m["split"] == "val"]
    assert own_summary(run) == {
        "status": "done", "commit": "c0ffee0123",
        "top1": 70.5, "best_top1": 70.5, "best_epoch": 99, "top5": 89.0, "best_top5": max(m["top5"] for m in val),
        "train_loss": 1.0, "val_loss": 1.3, "q_mean": 2.0, "q_median_with_gradient": 1.0,
        "images_per_s": 9000.0, "data_wait": pytest.approx(0.02), "base_lr": 0.4, "last_lr": 0.1, "gpu_hours": 48.9,
    }  # fmt: skip
    assert not any("trajectories" in k for row in history(run) for k in row)


def test_the_summary_of_runs_that_diverged_or_were_interrupted_holds_no_final_figure(tmp_path: Path) -> None:
    folder = write_grid(tmp_path)
    gone = replayed(diverge(folder, make_config("resnet18", "adam")))
    found = own_summary(gone)
    assert found["status"] == "diverged" and "best_top1" in found and not {"top1", "top5", "train_loss"} & found.keys()
    stopped = RunDir(folder / "resnet18-adarem-s0")
    stopped.freeze(make_config("resnet18", "adarem"))
    number = stopped.start_attempt({"commit": "c0ffee0123"})
    stopped.append_metrics({"epoch": 1, "split": "train", "step": 1251, "loss": 2.0, "lr": 0.4})
    stopped.end_attempt(number, "interrupted", "SIGUSR1")
    assert own_summary(replayed(stopped)) == {
        "status": "interrupted", "commit": "c0ffee0123", "base_lr": 0.4, "last_lr": 0.4
    }  # fmt: skip


def test_the_summary_of_a_language_model_is_perplexity(tmp_path: Path) -> None:
    make_plan(["grid=table3", "data=pydoc", "optimizer=adam", f"runs_dir={tmp_path}"]).write()
    run = RunDir(tmp_path / "table3-pydoc" / "awd_lstm-adam-s0")
    number = run.start_attempt({"commit": "c0ffee0123"})
    for epoch, of_val in ((1, 210.0), (2, 160.0), (3, 170.0)):
        common = {"epoch": epoch, "step": 50 * epoch, "loss": 5.0}
        run.append_metrics(
            common | {"split": "train", "perplexity": 150.0, "tokens_per_s": 4000.0, "lr": 0.002, "data_wait": 0.0,
                      "seconds_train": 36.0, "seconds_checkpoint": 0.0}
        )  # fmt: skip
        run.append_metrics(common | {"split": "val", "perplexity": of_val, "seconds_eval": 0.0})
    run.end_attempt(number, "done")
    run.write_result({"status": "done", "perplexity": 180.0, "val_perplexity": 170.0, "best_val_perplexity": 160.0})
    replayed(run)
    assert own_summary(run) == {
        "status": "done", "commit": "c0ffee0123", "perplexity": 180.0, "val_perplexity": 170.0,
        "best_val_perplexity": 160.0, "tokens_per_s": 4000.0, "data_wait": 0.0, "base_lr": run.config().optimizer.lr,
        "last_lr": 0.002,
    }  # fmt: skip
    drawn = [(r["epoch"], r["hours"], r["AWD_LSTM_small/val_perplexity"]) for r in history(run)]
    assert drawn == [(1, 0.01, 210.0), (2, 0.02, 160.0), (3, pytest.approx(0.03), 170.0)]


def test_hours_are_the_reports_whenever_they_are_sent(tmp_path: Path) -> None:
    run = finish(write_grid(tmp_path), make_config("resnet18", "adarem"), 70.5)
    last = {row["epoch"]: (row["hours"], row["device_hours"]) for _, row in rows(run, run.config())}
    of_report = read_run(run.path).hours
    assert list(last) == of_report[:, 0].tolist()
    assert list(last.values()) == [pytest.approx(tuple(h)) for h in of_report[:, 1:].tolist()]


def test_a_replay_tells_nothing_of_the_machine_that_replays(tmp_path: Path) -> None:
    run = replayed(finish(write_grid(tmp_path), make_config("resnet18", "adarem"), 70.5))
    kinds = {r.WhichOneof("record_type") for r in records(run)}
    assert not kinds & {"stats", "environment"} and not started(run).HasField("git")
    assert not list(run.path.glob("wandb/offline-run-*/files/wandb-metadata.json"))


def test_a_record_that_appears_while_the_mirror_looks_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """wandb drops what is logged at a step below the newest one."""
    run = RunDir(write_grid(tmp_path) / "resnet18-adarem-s0")
    config = make_config("resnet18", "adarem")
    run.freeze(config)
    run.append_metrics({"epoch": 1, "split": "train", "step": 10, "loss": 2.0})
    read = RunDir.read_metrics

    def training_goes_on(self: RunDir) -> Any:
        """The mirror has just read the records when training writes the next one and begins an epoch."""
        found = read(self)
        if run.progress() is None:
            run.append_metrics({"epoch": 1, "split": "val", "step": 10, "loss": 2.5, "top1": 40.0})
            run.write_progress({"step": 11, "loss": 1.9})
        return found

    class Session:
        step, logged = 0, []

        def log(self, values: dict[str, Any], step: int) -> None:
            self.logged.append((step, values))

    waits = iter([False, True])
    monkeypatch.setattr(RunDir, "read_metrics", training_goes_on)
    monkeypatch.setattr(mirror, "_input_ended", lambda seconds: next(waits))
    mirror._send(Session(), run, config, follow=True)
    steps = [step for step, _ in Session.logged]
    assert steps == sorted(steps) == [10, 10, 11]
    assert Session.logged[1][1]["val/top1"] == 40.0 and Session.logged[2][1] == {"live/loss": 1.9}


def test_the_id_is_stable_and_tells_cells_apart(tiny_run: Callable[..., Path]) -> None:
    a, b = RunDir(tiny_run("optimizer=adam")), RunDir(tiny_run("optimizer=adarem"))
    assert run_id(a, a.config()) == run_id(a, a.config()) != run_id(b, b.config())


@pytest.mark.parametrize("failure", ["raise RuntimeError('no wandb today')", "import time; time.sleep(3600)"])
def test_a_wandb_that_fails_or_hangs_costs_no_step(
    failure: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_run: Callable[..., Path],
    run_here: Callable[..., int],
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "wandb.py").write_text(failure)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setattr(mirror, "_FINISH_SECONDS", 1.0)
    run = RunDir(tiny_run("wandb.mode=online", "scale.epochs=1"))
    assert run_here(run.path) == exitcodes.OK
    assert run.status() == "done"
    if "RuntimeError" in failure:
        assert "no wandb today" in (run.path / "wandb.log").read_text()


def test_online_only_with_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_run: Callable[..., Path]) -> None:
    config = RunDir(tiny_run("wandb.mode=auto")).config()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert mirror.wandb_mode(config) == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert mirror.wandb_mode(config) == "online"
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert mirror.wandb_mode(config) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert mirror.wandb_mode(config) == "disabled"
