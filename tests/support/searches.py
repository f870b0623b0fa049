"""Fake searches: trials with given figures, written through the run directory's own writers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from tests.support.sweeps import diverge, finish, make_config, write_grid

Trials = Sequence[tuple[Mapping[str, float], float | str]]  # settings, and a figure, "diverged" or "planned"


def held_out(folder: Path, config: RunConfig, top1: float | None) -> RunDir:
    """A finished run that was evaluated on 57 held-out images; None: it diverged."""
    run = RunDir(folder / config.run_name)
    run.freeze(config)
    number = run.start_attempt({"commit": "c0ffee0123", "dirty": False})
    prints = {
        "train": {"content_hash": "a" * 64, "num_images": config.data.expected_train},
        "holdout": {"content_hash": "c" * 64, "num_images": 57},
    }
    if top1 is None:
        run.write_result({"status": "diverged", "epoch": 1, "reason": "loss is nan", "fingerprint": prints})
        return run
    for epoch in range(1, config.scale.epochs + 1):
        step = {"epoch": epoch, "step": 21 * epoch, "time": 1.8e9 + epoch, "loss": 1.0, "top1": top1, "top5": 99.0}
        run.append_metrics({**step, "split": "train", "images": 1344, "seconds_train": 9.0, "seconds_checkpoint": 1.0})
        run.append_metrics({**step, "split": "holdout", "images": 57, "seconds_eval": 1.0})
    run.end_attempt(number, "done")
    final = {
        "holdout_top1": top1,
        "holdout_top5": 99.0,
        "holdout_loss": 1.0,
        "evaluation": {"split": "holdout", "images": 57},
    }
    run.write_result({"status": "done", "epochs": config.scale.epochs, "fingerprint": prints, **final})
    return run


def write_search(
    runs_dir: Path,
    trials: Mapping[str, Trials],
    *,
    models: Sequence[str] = ("resnet18",),
    draw: Mapping[str, Any] | None = None,
    ranges: Mapping[str, Any] | None = None,
    metric: str = "holdout_top1",
) -> Path:
    """The folder of a search on the digits, of one seed; of a metric where lower is better on the Penn Treebank.

    Args:
        trials: by optimizer; settings without ``optimizer.`` before them.
        ranges: by optimizer and setting, where they are drawn.
    """
    text = metric == "val_perplexity"
    grid, data, scale = ("table3", "ptb", "paper_text") if text else ("table2", "digits", "rehearsal")
    models = ["awd_lstm"] if text else list(models)

    def dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {f"optimizer.{key}": value for key, value in settings.items()}

    search = {}
    for optimizer, of_optimizer in trials.items():
        keys = dict.fromkeys(key for settings, _ in of_optimizer for key in settings)
        values = {k: [s[k] for s, _ in of_optimizer if k in s] for k in keys}
        search[optimizer] = dotted(values if draw else {k: list(dict.fromkeys(v)) for k, v in values.items()})
    names: list[str] = []
    changed = {} if text else {"data": {"holdout": 0.04}}
    planned = []
    for model in models:
        for optimizer, of_optimizer in trials.items():
            for settings, figure in of_optimizer:
                own = {k: str(v) for k, v in dotted(settings).items()}
                config = make_config(
                    model, optimizer, 1000, grid=grid, data=data, scale=scale,
                    overrides=dotted(settings), changed=changed,
                )  # fmt: skip
                planned.append((config, own, figure))
                names.append(config.run_name)
    folder = write_grid(
        runs_dir, grid, data, scale, name="s", title="A search", metrics=[metric], axes={"model": models,
        "optimizer": list(trials)}, search=search, seeds=[1000], runs=names, selection="the best", figure=None,
        **({"draw": draw} if draw else {}),
        **({"ranges": {o: dotted(r) for o, r in ranges.items()}} if ranges else {}),
    )  # fmt: skip
    for config, _, figure in planned:
        if figure == "planned":
            RunDir(folder / config.run_name).freeze(config)
        elif text and figure == "diverged":
            diverge(folder, config)
        elif text:
            run = finish(folder, config, 0.0, epochs=False)
            run.write_result({**run.result(), "val_perplexity": figure, "perplexity": figure})
        else:
            held_out(folder, config, None if figure == "diverged" else float(figure))
    return folder
