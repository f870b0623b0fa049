"""The config of one run: its dataclasses, its checks, and its plain form in config.yaml.

No torch and no Hydra, so that every package can read a config. The same checks run when a grid is planned and when a
run directory is opened: an unknown key or an impossible value is an error, in one line that names the key.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from adarem.run.build import KEY, REST, as_float, build, nearest
from adarem.run.catalog import IMAGE_NETWORKS, OPTIMIZERS, Choices
from adarem.run.errors import UserError
from adarem.run.optimizer_names import check_form, is_imported

Scalar: TypeAlias = str | int | float | bool
# A setting of an optimizer: betas are a tuple, and some classes take a tuple of them.
Setting: TypeAlias = str | int | float | bool | None | tuple[Scalar | None | tuple[Scalar | None, ...], ...]

SEEDS = range(2**32)  # what every generator takes


@dataclass(frozen=True)
class WriteConfig:
    """How images are stored in a .beton file."""

    mode: Literal["raw", "proportion", "jpg"]
    max_side: int  # pixels; longer sides are scaled down to this before storing
    jpeg_quality: int  # 1 to 100, of the images stored as JPEG
    compress_probability: float  # share stored as JPEG when mode is "proportion"


@dataclass(frozen=True)
class DataConfig:
    """One set of images, where it lies and how the network gets them."""

    name: str
    label: str  # as printed: "ImageNet"
    root: str  # folder with train/<class>/* and val/<class>/*
    beton_dir: str  # folder of train.beton and val.beton
    backend: Literal["ffcv", "folder"]
    embedded: bool  # made on this machine from data inside a package; never a reproduction
    num_classes: int
    expected_train: int | None  # images of the full data set; other counts are warned about
    expected_val: int | None
    train_crop: int  # pixels, side of the random resized crop
    crop_area: tuple[float, ...]  # smallest and largest share of the image's area
    crop_aspect: tuple[float, ...]  # smallest and largest width / height
    flip: float  # probability of a horizontal flip
    eval_resize: int  # pixels, shorter side before the centre crop
    eval_crop: int  # pixels, side of the centre crop
    mean: tuple[float, ...]  # per channel, in units of pixel / 255
    std: tuple[float, ...]
    workers: int  # loader threads (ffcv) or processes (folder) per rank
    write: WriteConfig
    kind: Literal["images"] = "images"


@dataclass(frozen=True)
class TextConfig:
    """One corpus: <root>/<name>.train.txt, .valid.txt and .test.txt, one sentence per line, words between spaces."""

    kind: Literal["text"]
    name: str
    label: str  # as printed: "Penn Treebank"
    root: str
    embedded: bool  # made on this machine from data inside a package; never a reproduction
    vocabulary: int  # distinct words, end-of-sentence included
    expected_train: int | None  # tokens of the full files, end-of-sentence included; other counts are refused
    expected_val: int | None
    expected_test: int | None


@dataclass(frozen=True)
class ModelConfig:
    """A network for images."""

    name: str  # of catalog.NETWORKS, timm:NAME or torchvision:NAME
    label: str  # as the paper prints it
    kind: Literal["images"] = "images"


@dataclass(frozen=True)
class DropoutConfig:
    """Probabilities of the AWD-LSTM's dropouts; each draws one mask per batch."""

    words: float  # complete words of the embedding
    input: float  # of the first layer
    hidden: float  # between layers
    output: float  # of the last layer
    recurrent: float  # single hidden-to-hidden weights


@dataclass(frozen=True)
class LstmConfig:
    """The AWD-LSTM and what belongs to training it (Merity et al. 2017)."""

    kind: Literal["text"]
    name: Literal["awd_lstm"]
    label: str
    layers: int
    hidden: int  # size of all layers but the last
    embedding: int  # size of the word vectors and of the last layer
    dropout: DropoutConfig
    bptt: int  # time steps that a gradient goes back through, on average; the rate is scaled by length / bptt
    bptt_half: float  # probability that the length is drawn around half of bptt
    bptt_deviation: float  # time steps, standard deviation of a length
    bptt_least: int  # shortest length
    activation_reg: float  # on the last layer's dropped output
    temporal_reg: float  # on the steps of the last layer's output
    clip: float  # largest norm of the gradient over all parameters; 0 clips nothing
    average_after: int  # NT-ASGD: average once this many epochs passed without a better validation; 0 never does


@dataclass(frozen=True)
class OptimizerConfig:
    """In YAML the optimizer's own settings are keys next to lr and weight_decay."""

    name: str
    label: str
    lr: float  # base learning rate at the grid's global batch
    weight_decay: float
    hparams: Mapping[str, Setting] = field(metadata={REST: True})  # see ``catalog.OPTIMIZERS``
    source: str | None = field(
        default=None, metadata={KEY: "class"}
    )  # where it is imported from, if the name is another

    @property
    def imported(self) -> str | None:
        """Where it is imported from, ``torch:NAdam``; None for those of the catalog."""
        return self.source or (self.name if is_imported(self.name) else None)


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
    lr_factor: float = 1.0  # on the optimizer's base rate, where the batch is not the paper's


@dataclass(frozen=True)
class TrainConfig:
    channels_last: bool
    compile: bool
    deterministic: bool
    label_smoothing: float
    decay_norm_and_bias: bool
    eval_every: int  # epochs between evaluations; the last epoch is always evaluated
    checkpoint_every: int  # epochs between checkpoints; the last epoch always writes one
    oscillation: bool = False  # track Q and a few trajectories (Figures 1 and 2)
    oscillation_window: int = 1  # epochs of one window of Q
    watched_steps: int = 2000  # steps of a trajectory: at the run's beginning, middle and end


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
    extra: tuple[str, ...]  # further sbatch flags of the array, one string each
    setup: str  # shell line that each job runs first, e.g. "module load cuda"
    aux_partition: str | None = None  # of the prepare and the report job, which need no GPU; None is ``partition``
    aux_extra: tuple[str, ...] = ()  # further sbatch flags of these two
    stall_seconds: float = 600.0  # no progress of a rank for so long ends the run; longer than a first compile

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
    """Everything that one run needs; ``config.yaml`` in a run directory holds exactly this."""

    grid: str
    run_name: str = field(metadata={KEY: "cell"})  # the name of its folder
    seed: int
    data: DataConfig | TextConfig  # chosen by kind
    model: ModelConfig | LstmConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    scale: ScaleConfig
    train: TrainConfig
    cluster: ClusterConfig
    wandb: WandbConfig
    overrides: Mapping[str, Scalar] = field(default_factory=dict)  # off the grid's axes, as the run's name shows them


# A key of wandb, old or new, or its variable with a value that is no other variable or command.
_WANDB_KEY = re.compile(
    r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])|wandb_v\d+_\w+|WANDB_API_KEY\s*=\s*[\"']?[^\s\"'$`]", re.IGNORECASE
)


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


def _check_optimizer(o: OptimizerConfig) -> None:
    _require(o.lr > 0, f"optimizer.lr={o.lr}: needs a positive learning rate")
    _require(o.weight_decay >= 0, f"optimizer.weight_decay={o.weight_decay}: needs 0 or more")
    if o.imported is not None:  # its settings are known where it can be imported: plan tries them, training passes them
        check_form("optimizer", o.imported)
        if o.source is not None:
            check_name("optimizer.name", o.name)
            _require(o.name not in OPTIMIZERS, f"optimizer.name={o.name}: a built-in optimizer's; choose another name")
        return
    if o.name not in OPTIMIZERS:
        raise UserError(
            f"optimizer.name={o.name}: unknown optimizer; {nearest(o.name, OPTIMIZERS)} "
            "(or MODULE:NAME, for instance torch:NAdam)"
        )
    known = OPTIMIZERS[o.name].hparams
    for k, v in o.hparams.items():
        key = f"optimizer.{k}"
        if k not in known:
            raise UserError(f"{key}: {o.name} has no such setting; " + nearest(k, ["lr", "weight_decay", *known]))
        allowed = known[k]
        if isinstance(allowed, Choices):
            _require(v in allowed.values, f"{key}={v}: valid: {', '.join(map(str, allowed.values))}")
        else:
            v = as_float(v, key)
            _require(
                allowed.low <= v <= allowed.high, f"{key}={v}: needs a value from {allowed.low:g} to {allowed.high:g}"
            )


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
        known = m.name in IMAGE_NETWORKS or re.fullmatch(r"(timm|torchvision):[\w.]+", m.name)
        if not known:
            hint = nearest(m.name, IMAGE_NETWORKS)
            raise UserError(f"model.name={m.name}: unknown model; {hint} (or timm:NAME, torchvision:NAME)")
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
    shown = {
        "cluster.setup": [c.cluster.setup],
        "cluster.extra": c.cluster.extra,
        "cluster.aux_extra": c.cluster.aux_extra,
        "wandb.project": [c.wandb.project],
        "wandb.entity": [c.wandb.entity or ""],
    }
    for key, texts in shown.items():
        _require(
            not any(map(_WANDB_KEY.search, texts)),
            f"{key}: holds what looks like a wandb key, which config.yaml would show; remove it, and export "
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


def from_dict(raw: Mapping[str, object]) -> RunConfig:
    """Builds and checks a RunConfig from plain dicts and lists.

    Raises:
        UserError: an unknown, missing, ill-typed or impossible key, named with the nearest valid one.
    """
    config = build(RunConfig, raw)
    _check(config)
    return config


def to_dict(config: RunConfig) -> dict[str, object]:
    """The plain-dict form, as written to config.yaml: ``from_dict(to_dict(c)) == c``."""
    raw = json.loads(json.dumps(dataclasses.asdict(config)))
    if (source := raw["optimizer"].pop("source")) is not None:
        raw["optimizer"]["class"] = source
    raw["optimizer"].update(raw["optimizer"].pop("hparams"))
    return {"cell" if key == "run_name" else key: value for key, value in raw.items()}
