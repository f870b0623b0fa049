"""Reproduction, variation, rehearsal or study: the one rule, for plan, report and tracking.

A *study* is of a grid with no paper behind it. Of a grid of the paper, a *reproduction* has the paper's data, all of
them, its scale and the settings that it states; a *variation* has another setting; a *rehearsal* has other data or
another scale. The config decides until the run has recorded which data it saw; from then on the record counts, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from adarem.run.batch_norm import MICRO_BATCH, batch_norm_text, normalised_together, papers_number
from adarem.run.catalog import DATA_SETS, NETWORKS, PAPER_SCHEDULE, SYMBOLS
from adarem.run.config import DataConfig, RunConfig, TextConfig
from adarem.run.schedules import schedule_text
from adarem.run.stated import Stated
from adarem.run.sweep import SweepSpec, same_setting
from adarem.run.text_models import LstmConfig

Kind: TypeAlias = Literal["reproduction", "variation", "rehearsal", "study"]

# Share of the training images that may be missing: a few unreadable files, left out by `adarem prepare --skip-bad`.
TRAINING_MAY_LACK = 0.001
_SPLITS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Standing:
    """What a run, or a sweep's runs together, count as, and why, in one line without a full stop."""

    kind: Kind
    reason: str

    @property
    def rehearsal(self) -> str | None:
        """The reason, of a rehearsal; None of anything else."""
        return self.reason if self.kind == "rehearsal" else None


@dataclass(frozen=True)
class Seen:
    """What a run recorded of its data."""

    counts: Mapping[str, int | None] | None = None  # split to images or tokens; None: nothing is recorded yet
    evaluated: Sequence[int | None] = field(default=())  # images or tokens of each evaluation, in order
    normalised: Sequence[int] = field(default=())  # images normalised together, of each epoch that recorded it


def seen_by(
    config: RunConfig, result: Mapping[str, object], evaluated: Sequence[int] = (), normalised: Sequence[int] = ()
) -> Seen:
    """What the run's result.json, empty while there is none, its evaluations and its epochs so far record."""
    if not result:
        return Seen(None, evaluated, normalised)
    fingerprint, unit = result.get("fingerprint"), _unit(config)
    counts: dict[str, int | None] = {}
    for split in (s for s in _expected(config) if s != "val" or config.data.evaluated_on == "val"):
        of_split = fingerprint.get(split) if isinstance(fingerprint, Mapping) else None
        counts[split] = of_split.get(f"num_{unit}") if isinstance(of_split, Mapping) else None
    last: list[int | None] = []
    if result.get("status") == "done" and unit == "images":
        evaluation = result.get("evaluation")
        last = [evaluation.get("images") if isinstance(evaluation, Mapping) else None]
    return Seen(counts, (*evaluated, *last), normalised)


def standing_of_run(
    config: RunConfig, spec: SweepSpec | None, seen: Seen | None = None, stated: Stated | None = None
) -> Standing:
    """What a run counts as.

    Args:
        spec: of its sweep; None where no grid.yaml can be read, which counts as a grid of the paper.
        seen: what it has recorded so far.
        stated: what the paper states of settings; without it the grid's own settings count as the paper's.
    """
    if spec is not None and spec.paper is None:
        return Standing("study", f"{_size(config)}: a grid with no paper behind it")
    if not has_papers_setting(config):
        return Standing("rehearsal", _no_claim(_size(config)))
    if seen is not None and (line := _other_data(config, seen)):
        return Standing("rehearsal", _no_claim(line))
    if differing := varied(config, spec, stated, seen):
        return Standing("variation", f"another setting than the paper's: {', '.join(differing)}")
    return Standing("reproduction", "the paper's data, scale and settings")


def standing_of_sweep(spec: SweepSpec, folder_name: str, runs: Sequence[Standing]) -> Standing:
    """What the readable runs of ``runs/<folder_name>/`` count as together.

    One rehearsal makes a rehearsal of them all. Variations do not: they have rows of their own next to the
    reproductions, and a sweep is a variation where it holds nothing else.
    """
    if not runs:
        if spec.paper is None:
            return Standing("study", f"{folder_name} holds no readable run")
        kind: Kind = "reproduction" if spec.name == folder_name else "rehearsal"
        return Standing(kind, f"{folder_name} holds no readable run")
    for kind in ("rehearsal", "variation", "study"):
        of_kind = [run for run in runs if run.kind == kind]
        if len(of_kind) == len(runs) or of_kind and kind == "rehearsal":
            part = f" ({len(of_kind)} of {len(runs)} runs)" if len(of_kind) < len(runs) else ""
            return Standing(kind, of_kind[0].reason + part)
    varied_runs = sum(run.kind == "variation" for run in runs)
    part = f"; {varied_runs} of {len(runs)} runs are variations" if varied_runs else ""
    return Standing("reproduction", f"the paper's data, scale and settings{part}")


def has_papers_setting(config: RunConfig) -> bool:
    """Whether a config asks for the paper's data, all of them, at its scale, with its network's sizes."""
    d, s, known = config.data, config.scale, DATA_SETS.get(config.data.name)
    if d.embedded or known is None or known.paper_scale is None:
        return False
    if isinstance(d, DataConfig) and (d.val_share, d.listing) != (None, None):
        return False  # a split of the user's own, images of the user's own
    paper = known.paper_scale
    scale_is = (s.epochs, s.global_batch_size, s.lr_factor) == (
        paper.epochs,
        paper.global_batch_size,
        paper.lr_factor,
    )
    sizes_are = True
    if isinstance(config.model, LstmConfig):
        sizes = NETWORKS[config.model.name].paper_sizes
        sizes_are = all(getattr(config.model, key) == size for key, size in sizes.items())
    return scale_is and sizes_are and _expected(config) == known.counts  # which the data are held against


def of_paper(config: RunConfig) -> bool:
    """Whether the paper has a run's network."""
    known = NETWORKS.get(config.model.name)
    return known is not None and known.of_paper


def varied(config: RunConfig, spec: SweepSpec | None, stated: Stated | None, seen: Seen | None = None) -> list[str]:
    """The settings in which a run differs from its grid and from what the paper states, each in words."""
    grids = {k for k, v in config.overrides.items() if spec is not None and _of_grid(spec, config, k, v)}
    papers = stated.of(config.data.kind, config.optimizer.name) if stated else {}
    found = {}
    for name, value in papers.items():
        ours = config.optimizer.lr if name == "lr" else config.optimizer.hparams.get(name)
        if f"optimizer.{name}" not in grids and ours is not None and ours != value:
            found[f"optimizer.{name}"] = f"{_words(name)} {ours} (the paper states {value})"
    for key, value in config.overrides.items():
        leaf = key.removeprefix("optimizer.")
        as_stated = key.startswith("optimizer.") and leaf in papers  # found above where it differs
        if key not in grids and not as_stated and key != MICRO_BATCH:  # below, by what it does
            found.setdefault(key, f"{_words(key.rsplit('.', 1)[-1])} {value}")
    papers_schedule = (PAPER_SCHEDULE[config.data.kind], 0.0, 0.0, None)
    s, clip = config.schedule, config.train.clip_grad_norm
    varies = any(key.startswith(("schedule", "train.clip_grad_norm")) for key in config.overrides)
    if (s.name, s.warmup_epochs, s.min_lr, clip) != papers_schedule and not varies:
        found["schedule"] = schedule_text(config)
    if config.optimizer.no_decay:
        found.setdefault("optimizer.no_decay", f"no decay of {', '.join(config.optimizer.no_decay)}")
    if config.model.init is not None:
        found.setdefault("model.init", "weights to start from")
    if MICRO_BATCH not in grids and (others := _other_numbers(config, seen)):
        found[MICRO_BATCH] = batch_norm_text(", then ".join(map(str, others)))
    if config.optimizer.imported is not None:
        found["optimizer"] = f"optimizer {config.optimizer.imported}"
    if isinstance(config.data, DataConfig) and config.data.holdout is not None:
        found["data.holdout"] = "evaluated on held-out training images"
    if not of_paper(config):
        found["model"] = f"network {config.model.name}"
    return [found[key] for key in sorted(found)]


def _other_numbers(config: RunConfig, seen: Seen | None) -> list[int]:
    """How many images were normalised together, in order; empty where as many as in the paper, or where it has none."""
    numbers, papers = list(seen.normalised) if seen is not None else [], papers_number(config)
    if not numbers and (planned := normalised_together(config)) is not None:
        numbers = [planned]
    return numbers if papers is not None and numbers != [papers] else []


def _of_grid(spec: SweepSpec, config: RunConfig, key: str, value: object) -> bool:
    """Whether the grid itself plans this setting off its axes."""
    searched = spec.search.get(config.optimizer.name, {}).get(key, ())
    planned = [settings[key] for settings in spec.overrides.values() if key in settings]
    return any(same_setting(value, other) for other in (*searched, *planned))


def _other_data(config: RunConfig, seen: Seen) -> str | None:
    """In words which data the run saw, where they are not the full data set; None where they are, or are unknown."""
    d, unit, expected = config.data, _unit(config), _expected(config)
    wrong = []
    if seen.counts is not None:
        for split, count in expected.items():
            if split == "val" and d.evaluated_on != "val":
                continue  # never opened
            there = seen.counts.get(split)
            may_lack = TRAINING_MAY_LACK if (split, unit) == ("train", "images") else 0.0
            if not _is_full(there, count, may_lack):
                wrong.append(f"{_number(there)} of {_number(count)} {_SPLITS[split]} {unit}")
    if wrong:
        return f"{d.label} with {' and '.join(wrong)}"
    evaluated = seen.evaluated if d.evaluated_on == "val" else ()
    partial = [n for n in evaluated if not _is_full(n, d.expected_val, 0.0)]
    if partial:
        return f"{d.label}, evaluated on {_number(partial[-1])} of {_number(d.expected_val)} validation {unit}"
    return None


def _is_full(there: int | None, expected: int | None, may_lack: float) -> bool:
    return bool(there and expected and expected * (1.0 - may_lack) <= there <= expected)


def _expected(config: RunConfig) -> dict[str, int | None]:
    d = config.data
    counts = {"train": d.expected_train, "val": d.expected_val}
    return counts | {"test": d.expected_test} if isinstance(d, TextConfig) else counts


def _unit(config: RunConfig) -> str:
    return "images" if isinstance(config.data, DataConfig) else "tokens"


def _size(config: RunConfig) -> str:
    s = config.scale
    return f"{config.data.label}, {s.epochs} epochs, global batch {s.global_batch_size}"


def _no_claim(what: str) -> str:
    return f"{what}: shows that the pipeline works, says nothing about the paper's claims"


def _number(n: int | None) -> str:
    return f"{n:,}" if n else "an unknown number"


def _words(setting: str) -> str:
    return SYMBOLS.get(setting, setting.replace("_", " "))
