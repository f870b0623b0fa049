"""Fake sweeps, written through the run directory's own writers."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from adarem.plan.compose import labels, with_catalog
from adarem.run.config import RunConfig, from_dict
from adarem.run.directory import RunDir
from adarem.run.identity import config_hash
from adarem.run.sweep import run_name, spec_from_dict, sweep_name, write_sweep
from tests.support import ROOT

CONFIGS = ROOT / "configs"
HASHES = {"train": "a" * 64, "val": "b" * 64}


def _group(kind: str, name: str) -> dict[str, Any]:
    raw = yaml.safe_load((CONFIGS / kind / f"{name}.yaml").read_text())
    raw.pop("defaults", None)
    # YAML 1.1 reads 1e-4 as text; Hydra reads it as a number.
    return {k: float(v) if isinstance(v, str) and v[:1].isdigit() and "e-" in v else v for k, v in raw.items()}


def _data(name: str) -> dict[str, Any]:
    raw = _group("data", name) | {"root": "/data", "beton_dir": "/data/ffcv"}
    if raw.get("kind") == "text":
        raw.pop("beton_dir")
    return raw


def make_config(
    model: str,
    optimizer: str,
    seed: int = 0,
    *,
    grid: str = "table2",
    data: str = "imagenet",
    scale: str | None = None,
    overrides: dict[str, Any] | None = None,
    changed: dict[str, dict[str, Any]] | None = None,
) -> RunConfig:
    """The config that `adarem plan` would freeze; ``changed``: {section: {key: value}}."""
    rehearsal = data != "imagenet"
    raw = {
        "grid": grid,
        "cell": run_name(model, optimizer, seed, overrides or {}),
        "seed": seed,
        "data": _data(data),
        "model": _group("model", model),
        "optimizer": _group("optimizer", optimizer),
        "schedule": _group("schedule", "cosine"),
        "scale": _group("scale", scale or ("rehearsal" if rehearsal else "paper")),
        "train": yaml.safe_load((CONFIGS / "run.yaml").read_text())["train"],
        "cluster": _group("cluster", "local" if rehearsal else "slurm"),
        "wandb": {"mode": "disabled", "project": "adarem", "entity": None},
        "overrides": overrides or {},
    }
    with_catalog(raw)
    for key, value in (overrides or {}).items():
        section, _, leaf = key.partition(".")
        raw[section][leaf] = value
    for name, replaced in (changed or {}).items():
        raw[name] = raw[name] | replaced
    return from_dict(copy.deepcopy(raw))


def write_grid(runs_dir: Path, grid: str = "table2", data: str = "imagenet", scale: str = "paper", **changed) -> Path:
    folder = runs_dir / sweep_name(grid, data, scale)
    raw = yaml.safe_load((CONFIGS / "grid" / f"{grid}.yaml").read_text())
    printed = {"model": labels().model, "optimizer": labels().optimizer}
    write_sweep(folder, spec_from_dict(raw | {"labels": printed} | changed))
    return folder


def start(run: RunDir, *, commit: str = "c0ffee0123", dirty: bool = False, world_size: int = 16, **more) -> int:
    return run.start_attempt(
        {
            "command": "adarem train", "commit": commit, "dirty": dirty, "versions": {"torch": "2.14.1"},
            "host": "node1", "hosts": ["node1"], "device": "cpu", "world_size": world_size, "slurm_job": None,
            "resumed_from_step": 0, **more,
        }
    )  # fmt: skip


def write_epochs(
    run: RunDir, epochs: int, top1: float, loss: float = 1.0, of: int = 100, evaluated: int = 50_000, **more
) -> None:
    """Curves that end near ``top1`` and ``loss`` at epoch ``of``, over ``evaluated`` validation images."""
    for e in range(1, epochs + 1):
        rest = math.exp(-4.0 * e / of)
        run.append_metrics(
            {
                "epoch": e, "split": "train", "step": 1251 * e, "loss": loss + 5.0 * rest, "top1": top1, "top5": 90.0,
                "lr": 0.1, "images": 1000, "images_per_s": 9000.0, "data_wait": 0.02, "seconds_train": 100.0,
                "seconds_checkpoint": 1.0, "peak_memory_bytes": None, "time": 1.8e9 + e, **more,
            }
        )  # fmt: skip
        value = top1 if e == of else top1 * (1.0 - rest)
        run.append_metrics(
            {
                "epoch": e, "split": "val", "step": 1251 * e, "loss": loss + 0.3, "top1": value,
                "top5": min(100.0, value + 19.0), "images": evaluated, "seconds_eval": 9.0, "time": 1.8e9 + e,
            }
        )  # fmt: skip


def finish(
    folder: Path,
    config: RunConfig,
    top1: float,
    top5: float = 89.0,
    *,
    loss: float = 1.0,
    hashes: dict[str, str] = HASHES,
    commit: str = "c0ffee0123",
    dirty: bool = False,
    world_size: int | None = None,
    correct: np.ndarray | None = None,
    epochs: bool = True,
) -> RunDir:
    """A run that is done, with the figures that its trainer would leave.

    ``correct``: the validation set is these images, right to ``top1`` percent, and top-5 is the same.
    """
    run = RunDir(folder / config.run_name)
    run.freeze(config)
    world = world_size or config.cluster.world_size
    number = start(run, commit=commit, dirty=dirty, world_size=world)
    n, counts = config.scale.epochs, data_counts(config)
    if correct is not None:
        top5, counts["val"] = top1, len(correct)
        run.write_correct({"top1": correct, "top5": correct})
    if epochs:
        write_epochs(run, n, top1, loss, of=n, evaluated=counts["val"])
    run.end_attempt(number, "done")
    evaluation = {}
    if config.data.kind == "images":
        evaluation = {
            "resize": config.data.eval_resize, "crop": config.data.eval_crop, "images": counts["val"],
            "stored_max_side": config.data.write.max_side, "backend": config.data.backend,
        }  # fmt: skip
    run.write_result(
        {
            "status": "done", "epochs": n, "steps": 1251 * n, "top1": top1, "top5": top5, "val_loss": loss + 0.3,
            "train_loss": loss, "best_top1": top1 + 0.1, "best_epoch": n - 1, "parameters": 11689512,
            "config_hash": config_hash(config),
            "fingerprint": fingerprint(config, counts, hashes),
            "evaluation": evaluation,
            "world_size": world, "device": "cpu", "seconds": 110.0 * n, "gpu_hours": None, "images_per_s": 9000.0,
            "commit": commit, "dirty": dirty,
        }
    )  # fmt: skip
    return run


def data_counts(config: RunConfig) -> dict[str, int]:
    """Images or tokens of each split, as the genuine set has them."""
    d = config.data
    counts = {"train": d.expected_train or 100_000, "val": d.expected_val or 10_000}
    return counts | ({"test": d.expected_test or 10_000} if d.kind == "text" else {})


def fingerprint(config: RunConfig, counts: dict[str, int], hashes: dict[str, str] = HASHES) -> dict[str, Any]:
    unit = "num_images" if config.data.kind == "images" else "num_tokens"
    return {split: {"content_hash": hashes.get(split, "d" * 64), unit: n} for split, n in counts.items()}


def diverge(folder: Path, config: RunConfig, epoch: int = 3) -> RunDir:
    run = RunDir(folder / config.run_name)
    run.freeze(config)
    number = start(run)
    write_epochs(run, epoch, 5.0, of=config.scale.epochs)
    run.end_attempt(number, "diverged", "loss is nan")
    seen = fingerprint(config, data_counts(config))
    told = {"status": "diverged", "epoch": epoch, "step": 1251 * epoch, "reason": "loss is nan", "fingerprint": seen}
    run.write_result(told)
    return run
