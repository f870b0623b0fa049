"""The resolved configuration of one run, as frozen dataclasses; an unknown key or an impossible value is an error.

Standard library and yaml only, so that every plane can read a config without torch or Hydra. The same checks run when
a grid is planned and when a run directory is opened.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adarem.errors import UserError

# Networks known by name, beside timm:NAME and torchvision:NAME. adarem.models builds exactly these; a test compares.
MODELS = (
    "resnet18",
    "resnet50",
    "mobilenet_v2_1.0",
    "mobilenet_v2_0.5",
    "shufflenet_v2_1.0",
    "shufflenet_v2_0.5",
)

# Hyper-parameters that each optimizer takes beside lr and weight_decay, with the closed range of legal values
# (None: a switch or a choice). The trainer's table in adarem.optim.table takes exactly these; a test compares them.
HYPER: dict[str, dict[str, tuple[float, float] | None]] = {
    "sgd": {},
    "sgdm": {"momentum": (0, 1), "dampening": (0, 1), "nesterov": None},
    "adam": {"beta1": (0, 1), "beta2": (0, 1), "eps": (0, 1)},
    "adamw": {"beta1": (0, 1), "beta2": (0, 1), "eps": (0, 1)},
    "adabound": {"beta1": (0, 1), "beta2": (0, 1), "final_lr": (0, 1e6), "gamma": (0, 1), "eps": (0, 1)},
    "rmsprop": {"alpha": (0, 1), "eps": (0, 1), "momentum": (0, 1)},
    "adarem": {"beta": (0, 1), "lam": (0, 1), "eps": (0, 1), "scope": None},
    "adarem_s": {"beta": (0, 1), "lam": (0, 1), "eps": (0, 1), "scope": None, "sphere": None, "slr": None},
}


@dataclass(frozen=True)
class WriteConfig:
    """How images are stored in a .beton file."""

    mode: Literal["raw", "proportion", "jpg"]
    max_side: int  # pixels; longer sides are scaled down to this before storing
    jpeg_quality: int  # 1 to 100, of the images stored as JPEG
    compress_probability: float  # share stored as JPEG when mode is "proportion"


@dataclass(frozen=True)
class DataConfig:
    """One data set, where it lies and what the network sees of it."""

    name: str
    label: str  # as printed: "ImageNet"
    root: str  # folder with train/<class>/* and val/<class>/*
    beton_dir: str  # folder of train.beton and val.beton
    backend: Literal["ffcv", "folder"]
    embedded: bool  # made on this machine from data inside a package; never a reproduction
    num_classes: int
    expected_train: int | None  # image counts of the genuine set; others are warned about
    expected_val: int | None
    train_crop: int  # pixels, side of the random resized crop
    crop_area: tuple[float, ...]  # smallest and largest share of the image's area
    crop_aspect: tuple[float, ...]  # smallest and largest width / height
    flip: float  # probability of a horizontal flip
    eval_resize: int  # pixels, shorter side before the centre crop
    eval_crop: int  # pixels, side of the centre crop
    mean: tuple[float, ...]  # per channel, in units of pixel / 255
    std: tuple[float, ...]
    workers: int  # loader threads (ffcv) or processes (folder) a rank
    write: WriteConfig


@dataclass(frozen=True)
class ModelConfig:
    name: str  # one of MODELS, timm:NAME or torchvision:NAME
    label: str  # as the paper prints it


@dataclass(frozen=True)
class OptimizerConfig:
    """``hyper`` holds the optimizer's own settings (see HYPER); in YAML they stand beside lr and weight_decay."""

    name: str
    label: str
    lr: float  # base learning rate at the grid's global batch
    weight_decay: float
    hyper: Mapping[str, Any]


@dataclass(frozen=True)
class ScheduleConfig:
    name: Literal["cosine", "step", "constant"]
    warmup_epochs: float
    milestones: tuple[int, ...]  # epochs, for "step"
    gamma: float  # factor at each milestone, for "step"


@dataclass(frozen=True)
class ScaleConfig:
    """How much training; ``paper`` is the paper's."""

    name: str
    epochs: int
    global_batch_size: int
    precision: Literal["fp32", "bf16", "fp16"]  # of autocast


@dataclass(frozen=True)
class TrainConfig:
    channels_last: bool
    compile: bool
    deterministic: bool
    label_smoothing: float
    decay_norm_and_bias: bool
    eval_every: int  # epochs between evaluations; the last epoch is always evaluated
    checkpoint_every: int  # epochs between checkpoints; the last epoch always writes one


@dataclass(frozen=True)
class ClusterConfig:
    """Where ranks run: world_size = nodes * ranks_per_node."""

    name: Literal["local", "slurm"]
    device: Literal["cpu", "cuda"]
    nodes: int
    ranks_per_node: int
    cpus_per_rank: int
    threads_per_rank: int  # torch's intra-op threads; 0 leaves torch's own choice
    partition: str | None
    account: str | None
    time: str | None  # Slurm's time limit, e.g. "1-00:00:00"
    max_parallel: int  # array tasks that may run at once; 0 is no limit
    extra: tuple[str, ...]  # further sbatch flags, one string each
    setup: str  # shell line that each job runs first, e.g. "module load cuda"

    @property
    def world_size(self) -> int:
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True)
class WandbConfig:
    mode: Literal["auto", "online", "offline", "disabled"]  # auto: online with a key, offline without
    project: str
    entity: str | None


@dataclass(frozen=True)
class RunConfig:
    """Everything that one run needs. ``config.yaml`` in a run directory is this, nothing more and nothing less."""

    grid: str
    cell: str
    seed: int
    data: DataConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    scale: ScaleConfig
    train: TrainConfig
    cluster: ClusterConfig
    wandb: WandbConfig
    overrides: Mapping[str, Any] = field(default_factory=dict)  # off the grid's axes, as the cell's name shows them

    @property
    def rehearsal(self) -> str | None:
        """None for a run that counts as a reproduction (ImageNet, paper scale), else one line that says what it is."""
        if self.data.name == "imagenet" and self.scale.name == "paper" and not self.data.embedded:
            return None
        return (
            f"{self.data.label}, {self.scale.epochs} epochs, global batch {self.scale.global_batch_size}: "
            "shows that the pipeline works, says nothing about the paper's claims"
        )


def nearest(name: str, valid: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or the list of valid names, to end an error message with."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else "valid: " + ", ".join(valid)


def _coerce(value: Any, kind: Any, key: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # T | None
        inner = next(a for a in args if a is not type(None))
        return None if value is None else _coerce(value, inner, key)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{key}={value}: {nearest(str(value), map(str, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{key}={value!r}: needs a list of {args[0].__name__}")
        return tuple(_coerce(v, args[0], f"{key}[{i}]") for i, v in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, key)
    if origin is not None:  # Mapping[str, Any]
        if not isinstance(value, Mapping):
            raise UserError(f"{key}={value!r}: needs a mapping")
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{key}={value!r}: needs {kind.__name__}, not {type(value).__name__}")
    if kind is float and not math.isfinite(value):
        raise UserError(f"{key}={value}: needs a finite number")
    return value


def _build(cls: type, raw: Any, prefix: str) -> Any:
    if not isinstance(raw, Mapping):
        raise UserError(
            f"{prefix or 'config'}={raw!r}: needs a mapping with {', '.join(f.name for f in dataclasses.fields(cls))}"
        )
    raw = dict(raw)
    dot = f"{prefix}." if prefix else ""
    if cls is OptimizerConfig and "hyper" not in raw:
        plain = {f.name for f in dataclasses.fields(cls)}
        raw["hyper"] = {k: raw.pop(k) for k in list(raw) if k not in plain}
    hints = typing.get_type_hints(cls)
    for k in raw:
        if k not in hints:
            raise UserError(f"{dot}{k}: no such key; {nearest(str(k), hints)}")
    values = {}
    for f in dataclasses.fields(cls):
        if f.name in raw:
            values[f.name] = _coerce(raw[f.name], hints[f.name], dot + f.name)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise UserError(f"{dot}{f.name}: missing")
    return cls(**values)


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


def _check_optimizer(o: OptimizerConfig) -> None:
    _require(o.name in HYPER, f"optimizer.name={o.name}: unknown optimizer; {nearest(o.name, HYPER)}")
    _require(o.lr > 0, f"optimizer.lr={o.lr}: needs a positive learning rate")
    _require(o.weight_decay >= 0, f"optimizer.weight_decay={o.weight_decay}: needs 0 or more")
    choices = {
        "scope": ("tensor", "model"),
        "sphere": ("tensor", "model"),
        "slr": (True, False),
        "nesterov": (True, False),
    }
    for k, v in o.hyper.items():
        key = f"optimizer.{k}"
        _require(
            k in HYPER[o.name],
            f"{key}: {o.name} has no such setting; " + nearest(k, ["lr", "weight_decay", *HYPER[o.name]]),
        )
        bounds = HYPER[o.name][k]
        if bounds is None:
            _require(v in choices[k], f"{key}={v}: valid: {', '.join(map(str, choices[k]))}")
        else:
            v = _coerce(v, float, key)
            _require(bounds[0] <= v <= bounds[1], f"{key}={v}: needs a value from {bounds[0]:g} to {bounds[1]:g}")


def _check(c: RunConfig) -> None:
    d, s, w = c.data, c.scale, c.data.write
    _require(c.seed >= 0, f"seed={c.seed}: needs an integer of 0 or more")
    for key, value in (
        ("data.num_classes", d.num_classes),
        ("data.train_crop", d.train_crop),
        ("data.eval_resize", d.eval_resize),
        ("data.eval_crop", d.eval_crop),
        ("data.workers", d.workers),
        ("data.write.max_side", w.max_side),
        ("scale.epochs", s.epochs),
        ("scale.global_batch_size", s.global_batch_size),
        ("train.eval_every", c.train.eval_every),
        ("train.checkpoint_every", c.train.checkpoint_every),
        ("cluster.nodes", c.cluster.nodes),
        ("cluster.ranks_per_node", c.cluster.ranks_per_node),
        ("cluster.cpus_per_rank", c.cluster.cpus_per_rank),
    ):
        _require(value >= 1, f"{key}={value}: needs 1 or more")
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
    _require(0 <= c.train.label_smoothing < 1, f"train.label_smoothing={c.train.label_smoothing}: needs 0 up to 1")
    _require(
        0 <= c.schedule.warmup_epochs < s.epochs,
        f"schedule.warmup_epochs={c.schedule.warmup_epochs}: needs 0 up to scale.epochs={s.epochs}",
    )
    _require(
        c.schedule.name != "step" or (len(c.schedule.milestones) > 0 and c.schedule.gamma > 0),
        "schedule.milestones, schedule.gamma: a step schedule needs milestones and a positive gamma",
    )
    known = c.model.name in MODELS or re.fullmatch(r"(timm|torchvision):[\w.]+", c.model.name)
    _require(
        bool(known),
        f"model.name={c.model.name}: unknown model; {nearest(c.model.name, MODELS)} (or timm:NAME, torchvision:NAME)",
    )
    _check_world_size(s.global_batch_size, c.cluster.world_size)
    _check_optimizer(c.optimizer)


def _check_world_size(global_batch_size: int, world_size: int) -> None:
    if global_batch_size % world_size:
        fitting = [w for w in range(1, world_size + 1) if global_batch_size % w == 0]
        raise UserError(
            f"cluster.nodes * cluster.ranks_per_node={world_size} ranks do not divide "
            f"scale.global_batch_size={global_batch_size}; the next smaller world size that does is {fitting[-1]}"
        )


def from_dict(raw: Mapping[str, Any]) -> RunConfig:
    """Builds and checks a RunConfig from plain dicts and lists.

    Raises:
        UserError: an unknown, missing, ill-typed or impossible key, named with the nearest valid one.
    """
    config = _build(RunConfig, raw, "")
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
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:16]


def differing_keys(a: RunConfig, b: RunConfig) -> list[str]:
    """``key: in a, in b`` for every key on which two configs' identities differ."""
    x, y = identity(a), identity(b)
    return [f"{k}: {x.get(k, 'absent')} against {y.get(k, 'absent')}" for k in sorted({*x, *y}) if x.get(k) != y.get(k)]
