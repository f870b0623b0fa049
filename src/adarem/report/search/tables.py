"""What a search found, as rows for Markdown and the page, as sentences, and as CSV behind each figure."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from adarem.report.labels import Labels
from adarem.report.search.best_of_k import HALVED
from adarem.report.search.best_of_k import RULE as BEST_OF_K_RULE
from adarem.report.search.learning_rate import sensitivity
from adarem.report.search.trials import OptimizerSearch, Search, setting_label
from adarem.run.labels import readable
from adarem.run.sweep import setting_text

BEST = "The search: best so far"
BEST_OF_K = "The search: best of k trials"
TRIALS = "The search: all trials"


class Rows(NamedTuple):
    """A table under a heading, and sentences below it."""

    heading: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int]  # columns
    notes: Sequence[str]


def best(search: Search, labels: Labels) -> Rows:
    """The best so far of each optimizer on each network."""
    header = ("Network", "Optimizer", search.metric.label, "Settings", "Next best", "Trials", "Diverged", "On an edge")
    rows = []
    for part in search.parts:
        trial, other = part.best, part.chosen.next
        rows.append(
            (
                labels.model(part.model),
                labels.optimizer(part.optimizer),
                trial.text if trial else "—",
                part.settings_text(trial) if trial else "—",
                f"{other.figure:.2f}" if other else "—",
                _of(len(part.finished), len(part.trials)),
                str(part.diverged),
                ", ".join(f"{end} {setting_label(key)}" for key, end in part.chosen.edges.items()) or "—",
            )
        )
    return Rows(BEST, header, rows, (2, 4, 5, 6), [_rule(search)])


def _of(n: int, planned: int) -> str:
    return str(n) if n == planned else f"{n} of {planned}"


def _rule(search: Search) -> str:
    metric = search.metric
    return (
        f"The {metric.direction} {search.metric_name} after the last epoch, the mean over the search's seeds; a "
        "diverged trial is worse than all others; of equal ones the smaller settings, by learning rate first. The "
        "figure of the best of many trials is too good: what counts are runs with these settings on other seeds and "
        "images."
    )


def warnings(search: Search, labels: Labels) -> list[str]:
    """Where the best lies on an edge of what was tried, where every trial diverged, and unequal numbers of trials."""
    found = []
    for part in search.parts:
        name = f"{labels.optimizer(part.optimizer)} on {labels.model(part.model)}"
        if part.finished and part.best is None:
            found.append(f"{name}: every finished trial diverged ({part.counts}); search lower learning rates")
        for key, end in part.chosen.edges.items():
            tried = sorted(float(v) for t in part.trials for k, v in t.settings if k == key)  # type: ignore[arg-type]
            value = setting_text(part.chosen.best.settings[key]) if part.chosen.best else ""
            span = f"{tried[0]:g} to {tried[-1]:g}"
            found.append(
                f"{name}: the best lies at the {end} {setting_label(key)} tried ({value} of {span}); a wider range may "
                "hold a better one"
            )
        if part.chosen.ties:
            found.append(
                f"{name}: {part.chosen.ties + 1} trials are equal to the best; those with the smaller settings count"
            )
    for model in search.models:
        counts = {labels.optimizer(p.optimizer): len(p.finished) for p in search.of(model)}
        if len(set(counts.values())) > 1:
            spelled = ", ".join(f"{name} {n}" for name, n in counts.items())
            found.append(
                f"{labels.model(model)}: the optimizers have different numbers of finished trials ({spelled}); compare "
                "them at the same k"
            )
    return found


def best_of_k(search: Search, labels: Labels) -> Rows:
    """The mean of the best of 1, 2, 4, ... trials."""
    most = max((len(part.best_of_k) for part in search.parts), default=0)
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k < most]
    header = ["Network", "Optimizer", *(f"k = {k}" for k in ks), "all"]
    rows = []
    for part in search.parts:
        by_k = {b.k: b.mean for b in part.best_of_k}
        means = [by_k.get(k) for k in ks]
        last = part.best_of_k[-1].mean if part.best_of_k else None
        texts = [f"{m:.2f}" if m is not None else "—" for m in (*means, last)]
        texts[-1] += f" ({part.counts})"
        rows.append([labels.model(part.model), labels.optimizer(part.optimizer), *texts])
    halved = any(part.first_rung is not None for part in search.parts)
    return Rows(BEST_OF_K, header, rows, range(2, len(header)), [BEST_OF_K_RULE + (HALVED if halved else "")])


def trials(search: Search, labels: Labels) -> Rows:
    """Every trial, the best of each optimizer first."""
    header = ("Network", "Optimizer", "Rank", "Settings", search.metric.label, "Epochs", "Runs")
    rows = []
    for part in search.parts:
        for rank, trial in enumerate(part.trials, 1):
            rows.append(
                (
                    labels.model(part.model),
                    labels.optimizer(part.optimizer),
                    str(rank) if trial.figure is not None else "—",
                    readable(dict(trial.settings)),
                    trial.text,
                    str(trial.epochs),
                    ", ".join(r.dir.path.name for r in trial.runs),
                )
            )
    return Rows(TRIALS, header, rows, (2, 4, 5), [])


ALL = (best, best_of_k, trials)


def csvs(search: Search) -> Mapping[str, str]:
    """File name to CSV: best so far, all trials (behind the figure of settings), best of k, learning rate."""
    keys = list(dict.fromkeys(key for part in search.parts for trial in part.trials for key, _ in trial.settings))
    metric = search.metric_name
    best_rows, trial_rows, k_rows, rate_rows = [], [], [], []
    for part in search.parts:
        cell = {"model": part.model, "optimizer": part.optimizer}
        edges = " ".join(f"{key}={end}" for key, end in part.chosen.edges.items())
        other = part.chosen.next
        best_rows.append(
            {
                **cell, "metric": metric, "figure": _number(part.best.figure if part.best else None),
                "next_best": _number(other.figure if other else None), "trials": len(part.trials),
                "finished": len(part.finished), "diverged": part.diverged, "ties": part.chosen.ties, "edges": edges,
                **(_settings(part.best.settings) if part.best else {}),
            }
        )  # fmt: skip
        for rank, t in enumerate(part.trials, 1):
            trial_rows.append(
                {
                    **cell, "rank": rank if t.figure is not None else "", "metric": metric, "figure": _number(t.figure),
                    "state": t.state, "epochs": t.epochs, **_settings(t.settings),
                    "runs": " ".join(r.name for r in t.runs),
                }
            )  # fmt: skip
        for b in part.best_of_k:
            k_rows.append(
                {
                    **cell, "metric": metric, "k": b.k, "mean": _number(b.mean),
                    "worse_quartile": _number(b.worse_quartile), "median": _number(b.median),
                    "better_quartile": _number(b.better_quartile), "all_diverged": f"{b.all_diverged:.6g}",
                }
            )  # fmt: skip
        rate_rows += [{**cell, **row} for row in _rates(part, metric)]
    head = ["model", "optimizer", "metric"]
    of_trial = ["model", "optimizer", "rank", "metric", "figure", "state", "epochs", *keys, "runs"]
    quartiles = ["worse_quartile", "median", "better_quartile"]
    counts = ["trials", "finished", "diverged", "ties", "edges"]
    return {
        "search-best.csv": _csv([*head, "figure", "next_best", *counts, *keys], best_rows),
        "search-trials.csv": _csv(of_trial, trial_rows),
        "search-best-of-k.csv": _csv([*head, "k", "mean", *quartiles, "all_diverged"], k_rows),
        "search-learning-rate.csv": _csv([*head, "learning_rate", "figure", "state", "line"], rate_rows),
    }


def _rates(part: OptimizerSearch, metric: str) -> list[dict[str, object]]:
    found = sensitivity(part)
    if found is None:
        return []
    return [
        {
            "metric": metric, "learning_rate": f"{p.rate:g}", "figure": _number(p.trial.figure), "state": p.trial.state,
            "line": _number(p.line),
        }
        for p in found.points
    ]  # fmt: skip


def _settings(settings: Iterable[tuple[str, object]]) -> dict[str, str]:
    return {key: setting_text(value) for key, value in settings}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    f = io.StringIO()
    writer = csv.DictWriter(f, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return f.getvalue()
