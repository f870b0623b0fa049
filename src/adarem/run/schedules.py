"""Schedules in words, and the optimizers whose schedule is not that of the others."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from adarem.run.config import RunConfig

# Overrides that vary a schedule on purpose, in rows of their own.
_VARIED = ("schedule", "train.clip_grad_norm")


class Schedules(NamedTuple):
    """Of the runs of a sweep."""

    common: RunConfig  # a run with the schedule of most optimizers
    own: Mapping[str, str]  # an optimizer's label to its own schedule, in words


def schedule_text(config: RunConfig) -> str:
    """``cosine learning rate, no warm-up``, and what else is set."""
    s, clip = config.schedule, config.train.clip_grad_norm
    words = [f"{s.name} learning rate", f"{s.warmup_epochs:g} epochs of warm-up" if s.warmup_epochs else "no warm-up"]
    if s.min_lr:
        words.append(f"falls to {s.min_lr:g}")
    if clip is not None:
        words.append(f"gradient clipped to norm {clip:g}" if clip else "gradient not clipped")
    return ", ".join(words)


def schedules(configs: Iterable[RunConfig]) -> Schedules:
    """Which schedule is common, and which optimizers have one of their own.

    Runs whose overrides vary the schedule do not count, where there are others; nor does an optimizer whose runs have
    several schedules.
    """
    runs = list(configs)
    planned = [c for c in runs if not any(k.startswith(_VARIED) for k in c.overrides)] or runs
    by_optimizer: dict[str, dict[str, RunConfig]] = {}
    for c in planned:
        by_optimizer.setdefault(c.optimizer.label, {}).setdefault(_complete_text(c), c)
    votes = Counter(text for texts in by_optimizer.values() for text in texts)
    (most, _), *_ = votes.most_common(1)
    common = next(texts[most] for texts in by_optimizer.values() if most in texts)
    own = {label: text for label, texts in by_optimizer.items() if len(texts) == 1 for text in texts if text != most}
    return Schedules(common, own)


def _complete_text(config: RunConfig) -> str:
    s, text = config.schedule, schedule_text(config)
    at = ", ".join(map(str, s.milestones))
    return f"{text}, times {s.gamma:g} at epochs {at}" if s.name == "step" else text
