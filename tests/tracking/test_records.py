"""Curves and summary of runs, as real wandb writes them offline."""

from pathlib import Path

import pytest

from adarem.plan.plan import make_plan
from adarem.report.load import read_run
from adarem.run.directory import RunDir
from adarem.tracking.records import rows
from tests.support.sweeps import diverge, finish, make_config, write_grid
from tests.support.wandb_files import definitions, history, own_summary, replayed, summary


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
        "holdout/*": ("epoch", {"last"}),
        "holdout/loss": ("epoch", {"min", "last"}),
        "holdout/top1": ("epoch", {"max", "last"}),
        "holdout/top5": ("epoch", {"max", "last"}),
        "ResNet_18/*": ("epoch", {"none"}),
        "watch/*": ("", {"none"}),
        "watch_layers/*": ("", {"none"}),
        "live/*": ("", {"none"}),
    }
    found, val = summary(run), [m for m in run.metrics() if m["split"] == "val"]
    assert found["val/top1"] == {"max": max(m["top1"] for m in val), "last": val[-1]["top1"]}
    assert found["val/loss"] == {"min": min(m["loss"] for m in val), "last": val[-1]["loss"]}
    assert found["train/lr"] == {"last": 0.1} and found["epoch"] == 100
    assert not any(k.startswith("ResNet_18/") for k in found)


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


def test_the_summary_of_runs_that_diverged_or_were_interrupted_holds_no_final_metric(tmp_path: Path) -> None:
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
    last = {row["epoch"]: (row["hours"], row["device_hours"]) for row in (r.values for r in rows(run, run.config()))}
    of_report = read_run(run.path).hours
    assert list(last) == of_report[:, 0].tolist()
    assert list(last.values()) == [pytest.approx(tuple(h)) for h in of_report[:, 1:].tolist()]
