"""Configs: building, checking and comparing them; an unknown key or an impossible value is an error.

Standard library only, so that every plane can read a config without torch or Hydra. The same checks run when a grid is
planned and when a run directory is opened.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from adarem.run.errors import UserError
from adarem.run.schema import (
    HYPER,
    MODELS,
    ClusterConfig,
    DataConfig,
    DropoutConfig,
    GridFile,
    LstmConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScaleConfig,
    ScheduleConfig,
    TextConfig,
    TrainConfig,
    WandbConfig,
    WriteConfig,
)
from adarem.run.typed import build, coerce, nearest

__all__ = [
    "HYPER",
    "MODELS",
    "SEEDS",
    "ClusterConfig",
    "DataConfig",
    "DropoutConfig",
    "GridFile",
    "LstmConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "ScaleConfig",
    "ScheduleConfig",
    "TextConfig",
    "TrainConfig",
    "WandbConfig",
    "WriteConfig",
    "build",
    "check_name",
    "config_hash",
    "differing_keys",
    "from_dict",
    "hash_of",
    "identity",
    "nearest",
    "to_dict",
]


SEEDS = range(2**32)  # what every generator takes

# A key of wandb, old or new, or its variable with a value that is no other variable or command.
_WANDB_KEY = re.compile(
    r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])|wandb_v\d+_\w+|WANDB_API_KEY\s*=\s*[\"']?[^\s\"'$`]", re.IGNORECASE
)


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


def _check_optimizer(o: OptimizerConfig) -> None:
    if o.name not in HYPER:
        raise UserError(f"optimizer.name={o.name}: unknown optimizer; {nearest(o.name, HYPER)}")
    _require(o.lr > 0, f"optimizer.lr={o.lr}: needs a positive learning rate")
    _require(o.weight_decay >= 0, f"optimizer.weight_decay={o.weight_decay}: needs 0 or more")
    choices = {
        "decay_every": ("epoch", "step"),
        "scope": ("tensor", "model"),
        "sphere": ("tensor", "model"),
        "slr": (True, False),
        "nesterov": (True, False),
    }
    for k, v in o.hyper.items():
        key = f"optimizer.{k}"
        if k not in HYPER[o.name]:
            raise UserError(
                f"{key}: {o.name} has no such setting; " + nearest(k, ["lr", "weight_decay", *HYPER[o.name]])
            )
        bounds = HYPER[o.name][k]
        if bounds is None:
            _require(v in choices[k], f"{key}={v}: valid: {', '.join(map(str, choices[k]))}")
        else:
            v = coerce(v, float, key)
            _require(bounds[0] <= v <= bounds[1], f"{key}={v}: needs a value from {bounds[0]:g} to {bounds[1]:g}")


def _at_least_1(*pairs: tuple[str, int]) -> None:
    for key, value in pairs:
        _require(value >= 1, f"{key}={value}: needs 1 or more")


def _check_images(d: DataConfig) -> None:
    w = d.write
    _at_least_1(
        ("data.num_classes", d.num_classes),
        ("data.train_crop", d.train_crop),
        ("data.eval_resize", d.eval_resize),
        ("data.eval_crop", d.eval_crop),
        ("data.workers", d.workers),
        ("data.write.max_side", w.max_side),
    )
    _require(
        d.eval_crop <= d.eval_resize, f"data.eval_crop={d.eval_crop}: larger than data.eval_resize={d.eval_resize}"
    )
    for key, pair, low in (("data.crop_area", d.crop_area, 0.0), ("data.crop_aspect", d.crop_aspect, 0.0)):
        _require(len(pair) == 2 and low < pair[0] <= pair[1], f"{key}={list(pair)}: needs [smallest, largest], above 0")
    _require(d.crop_area[1] <= 1, f"data.crop_area={list(d.crop_area)}: a share of the image's area is at most 1")
    _require(0 <= d.flip <= 1, f"data.flip={d.flip}: needs a probability from 0 to 1")
    _require(
        len(d.mean) == 3 and len(d.std) == 3 and min(d.std) > 0, "data.mean, data.std: need three values, std above 0"
    )
    _require(1 <= w.jpeg_quality <= 100, f"data.write.jpeg_quality={w.jpeg_quality}: needs 1 to 100")
    _require(
        0 <= w.compress_probability <= 1, f"data.write.compress_probability={w.compress_probability}: needs 0 to 1"
    )


def _check_model(c: RunConfig) -> None:
    m, d = c.model, c.data
    if isinstance(m, ModelConfig):
        known = m.name in MODELS or re.fullmatch(r"(timm|torchvision):[\w.]+", m.name)
        if not known:
            raise UserError(
                f"model.name={m.name}: unknown model; {nearest(m.name, MODELS)} (or timm:NAME, torchvision:NAME)"
            )
    else:
        _check_lstm(m)
        _require(c.train.label_smoothing == 0, f"train.label_smoothing={c.train.label_smoothing}: {m.name} takes none")
    other = "model=awd_lstm, or grid=table3" if d.kind == "text" else "data=ptb or data=pydoc"
    _require(m.kind == d.kind, f"model.name={m.name} reads {m.kind}, data.name={d.name} is {d.kind}; take {other}")


def _check_lstm(m: LstmConfig) -> None:
    sizes = ("layers", "hidden", "embedding", "bptt", "bptt_least")
    _at_least_1(*((f"model.{key}", getattr(m, key)) for key in sizes))
    for key, p in dataclasses.asdict(m.dropout).items():
        _require(0 <= p < 1, f"model.dropout.{key}={p}: needs a probability from 0 up to 1")
    _require(0 <= m.bptt_half <= 1, f"model.bptt_half={m.bptt_half}: needs a probability from 0 to 1")
    _require(m.bptt_least <= m.bptt, f"model.bptt_least={m.bptt_least}: larger than model.bptt={m.bptt}")
    for key in ("bptt_deviation", "activation_reg", "temporal_reg", "clip", "average_after"):
        _require(getattr(m, key) >= 0, f"model.{key}={getattr(m, key)}: needs 0 or more")


def check_name(key: str, value: str) -> None:
    """Raises UserError for a name that would not stay inside the folder of the files it names."""
    _require(
        bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+=-]{0,63}", value)),
        f"{key}={value}: names files; use letters, digits and _ . + = -, at most 64, a letter or digit first",
    )


def _check_no_key(c: RunConfig) -> None:
    """config.yaml is copied and shown around. The value stays out of the message, too."""
    told = {
        "cluster.setup": [c.cluster.setup],
        "cluster.extra": c.cluster.extra,
        "cluster.aux_extra": c.cluster.aux_extra,
        "wandb.project": [c.wandb.project],
        "wandb.entity": [c.wandb.entity or ""],
    }
    for key, texts in told.items():
        _require(
            not any(map(_WANDB_KEY.search, texts)),
            f"{key}: holds what looks like a wandb key, which would stand in config.yaml; take it out, and export "
            "WANDB_API_KEY in the shell that launches, or let `wandb login` keep it in ~/.netrc",
        )


def _check(c: RunConfig) -> None:
    s = c.scale
    for key, value in (("grid", c.grid), ("data.name", c.data.name), ("scale.name", s.name)):
        check_name(key, value)
    _require(c.seed in SEEDS, f"seed={c.seed}: needs an integer of 0 or more, below 2**32")
    _check_no_key(c)
    _at_least_1(
        ("scale.epochs", s.epochs),
        ("scale.global_batch_size", s.global_batch_size),
        ("train.eval_every", c.train.eval_every),
        ("train.checkpoint_every", c.train.checkpoint_every),
        ("train.oscillation_window", c.train.oscillation_window),
        ("cluster.nodes", c.cluster.nodes),
        ("cluster.ranks_per_node", c.cluster.ranks_per_node),
        ("cluster.cpus_per_rank", c.cluster.cpus_per_rank),
    )
    if isinstance(c.data, DataConfig):
        _check_images(c.data)
    else:
        _require(c.data.vocabulary >= 2, f"data.vocabulary={c.data.vocabulary}: needs 2 or more")
    stall = c.cluster.stall_seconds
    _require(stall >= 10, f"cluster.stall_seconds={stall}: needs 10 or more; below a step's time it ends healthy runs")
    _require(s.lr_factor > 0, f"scale.lr_factor={s.lr_factor}: needs a positive factor")
    _require(c.train.watched_steps >= 0, f"train.watched_steps={c.train.watched_steps}: needs 0 or more")
    _require(0 <= c.train.label_smoothing < 1, f"train.label_smoothing={c.train.label_smoothing}: needs 0 up to 1")
    _require(
        0 <= c.schedule.warmup_epochs < s.epochs,
        f"schedule.warmup_epochs={c.schedule.warmup_epochs}: needs 0 up to scale.epochs={s.epochs}",
    )
    _require(
        c.schedule.name != "step" or (len(c.schedule.milestones) > 0 and c.schedule.gamma > 0),
        "schedule.milestones, schedule.gamma: a step schedule needs milestones and a positive gamma",
    )
    _check_model(c)
    _check_world_size(s.global_batch_size, c.cluster.world_size)
    _check_optimizer(c.optimizer)


def _check_world_size(global_batch_size: int, world_size: int) -> None:
    if global_batch_size % world_size:
        fitting = [w for w in range(1, world_size + 1) if global_batch_size % w == 0]
        raise UserError(
            f"cluster.nodes * cluster.ranks_per_node={world_size} ranks do not divide "
            f"scale.global_batch_size={global_batch_size}; the next smaller world size that does is {fitting[-1]}"
        )


def _with_hyper(raw: Any) -> Any:
    """In YAML an optimizer's own settings stand beside lr and weight_decay; OptimizerConfig has them in ``hyper``."""
    optimizer = raw.get("optimizer") if isinstance(raw, Mapping) else None
    if not isinstance(optimizer, Mapping) or "hyper" in optimizer:
        return raw
    fields = {f.name for f in dataclasses.fields(OptimizerConfig)}
    plain = {k: v for k, v in optimizer.items() if k in fields}
    return {**raw, "optimizer": {**plain, "hyper": {k: v for k, v in optimizer.items() if k not in fields}}}


def from_dict(raw: Mapping[str, Any]) -> RunConfig:
    """Builds and checks a RunConfig from plain dicts and lists.

    Raises:
        UserError: an unknown, missing, ill-typed or impossible key, named with the nearest valid one.
    """
    config = build(RunConfig, _with_hyper(raw))
    _check(config)
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """The plain-dict form, as written to config.yaml: from_dict(to_dict(c)) == c."""
    raw = json.loads(json.dumps(dataclasses.asdict(config)))
    if "optimizer" in raw:
        raw["optimizer"].update(raw["optimizer"].pop("hyper"))
    return raw


# What may differ between two starts of one run without changing its result: where things lie, who computes, who looks.
_CIRCUMSTANCES = ("cluster", "wandb", "data.root", "data.beton_dir", "data.workers")


def identity(config: RunConfig) -> dict[str, Any]:
    """The part of a config that decides the run's result, flattened to dotted keys."""

    def flatten(node: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for k, v in node.items():
            if f"{prefix}{k}" in _CIRCUMSTANCES:
                continue
            flat |= flatten(v, f"{prefix}{k}.") if isinstance(v, dict) else {f"{prefix}{k}": v}
        return flat

    return flatten(to_dict(config), "")


def config_hash(config: RunConfig) -> str:
    """Hash of ``identity``: runs with equal hashes compute the same thing."""
    return hash_of(identity(config))


def hash_of(settings: Mapping[str, Any]) -> str:
    """``config_hash`` of the config whose ``identity`` this is."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def differing_keys(a: RunConfig, b: RunConfig) -> list[str]:
    """``key: in a, in b`` for every key on which two configs' identities differ."""
    x, y = identity(a), identity(b)
    return [f"{k}: {x.get(k, 'absent')} against {y.get(k, 'absent')}" for k in sorted({*x, *y}) if x.get(k) != y.get(k)]
