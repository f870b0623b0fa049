"""The config of one run: its dataclasses, its checks, and its plain form in config.yaml.

No torch and no Hydra, so that every package can read a config. The same checks run when a grid is planned and when a
run directory is opened: an unknown key or an impossible value is an error, in one line that names the key.
"""

import dataclasses
import functools
import json
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from adarem.run.build import KEY, LATER, REST, as_float, build, nearest, unset
from adarem.run.catalog import IMAGE_NETWORKS, NETWORKS, OPTIMIZERS
from adarem.run.data_config import DataConfig as DataConfig
from adarem.run.data_config import EvaluationSplit as EvaluationSplit
from adarem.run.data_config import TextConfig as TextConfig
from adarem.run.data_config import WriteConfig as WriteConfig
from adarem.run.data_config import check_images, require
from adarem.run.errors import UserError
from adarem.run.imported_names import check_form, is_imported, is_own_network
from adarem.run.setting import (
    AT_LEAST_0,
    AT_LEAST_1,
    POSITIVE,
    SHARE_BELOW_1,
    ImportedFrom,
    InitFile,
    InitHash,
    Range,
    Scalar,
    Setting,
    Value,
)
from adarem.run.text_models import GptConfig, LmConfig, LstmConfig, check_gpt, check_lstm

SEEDS = range(2**32)  # what every generator takes
MOST_WATCHED = 4096  # steps of a run with a record in steps.jsonl


@dataclass(frozen=True)
class ModelConfig:
    """A network for images. The settings of one that is imported are keys next to its name."""

    name: Annotated[
        str,
        Setting("of the catalog; timm:NAME, torchvision:NAME; MODULE:NAME of a function or class; or a name of yours"),
    ]
    label: Annotated[str, Setting("as the paper prints it")]
    kind: Literal["images"] = "images"
    settings: Mapping[str, Value] = field(default_factory=dict, metadata={REST: True})
    source: ImportedFrom = field(default=None, metadata={KEY: "class", LATER: True})
    init: InitFile = field(default=None, metadata={LATER: True})
    init_sha256: InitHash = field(default=None, metadata={LATER: True})

    @property
    def imported(self) -> str | None:
        """Where it is imported from, ``my_package:make_network``; None for those of the catalog and of libraries."""
        return self.source or (self.name if is_own_network(self.name) else None)


@dataclass(frozen=True)
class OptimizerConfig:
    """In YAML the optimizer's own settings are keys next to lr and weight_decay."""

    name: Annotated[
        str, Setting("of the catalog; MODULE:NAME of one that is imported, torch:NAdam; or a name of yours")
    ]
    label: Annotated[str, Setting("as the paper prints it")]
    lr: Annotated[float, Setting("base learning rate at the grid's global batch", POSITIVE)]
    weight_decay: Annotated[float, Setting("how it is applied: see each optimizer", AT_LEAST_0)]
    hparams: Mapping[str, Value] = field(metadata={REST: True})  # see ``catalog.OPTIMIZERS``
    source: ImportedFrom = field(default=None, metadata={KEY: "class"})
    no_decay: Annotated[
        tuple[Literal["bias", "norm", "embedding"], ...], Setting("kinds of parameters without weight decay")
    ] = field(default=(), metadata={LATER: True})

    @property
    def imported(self) -> str | None:
        """Where it is imported from, ``torch:NAdam``; None for those of the catalog."""
        return self.source or (self.name if is_imported(self.name) else None)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run."""

    name: Annotated[Literal["cosine", "step", "constant"], Setting("cosine, factors at milestones, or constant")]
    warmup_epochs: Annotated[float, Setting("linear rise to the base rate, before scale.epochs", AT_LEAST_0, "epochs")]
    milestones: Annotated[tuple[int, ...], Setting("for step: where the rate is multiplied", unit="epochs")]
    gamma: Annotated[float, Setting("for step: the factor at each milestone, above 0")]
    min_lr: Annotated[
        float,
        Setting("for cosine: the base rate that it ends at, as optimizer.lr; groups' own rates fall alike", AT_LEAST_0),
    ] = field(default=0.0, metadata={LATER: True})


@dataclass(frozen=True)
class ScaleConfig:
    """How much training; ``paper`` is the paper's."""

    name: Annotated[str, Setting("goes into the names of sweeps where it is not the data set's usual one")]
    epochs: Annotated[int, Setting("length of training", AT_LEAST_1, "epochs")]
    global_batch_size: Annotated[
        int, Setting("over all ranks, which have to divide it", AT_LEAST_1, "images, or columns of text")
    ]
    precision: Annotated[Literal["fp32", "bf16", "fp16"], Setting("of autocast")]
    lr_factor: Annotated[
        float, Setting("on the optimizer's base rate, where the batch is not the paper's", POSITIVE)
    ] = 1.0
    micro_batch_size: Annotated[
        int | None,
        Setting(
            "of a rank in one forward and backward pass, as many passes a step as its part of the global batch takes; "
            "null: one; auto: the largest that `adarem probe` found to fit, which plan writes as a number",
            AT_LEAST_1,
            "images, columns of text, or windows",
        ),
    ] = field(default=None, metadata={LATER: True})

    def passes(self, world_size: int) -> int:
        """Forward and backward passes of each rank in one optimizer step."""
        return 1 if self.micro_batch_size is None else self.global_batch_size // world_size // self.micro_batch_size

    def images_per_pass(self, world_size: int) -> int:
        """Images (columns of text, windows) of a rank in one pass: those that a BatchNorm normalises together."""
        return self.micro_batch_size or self.global_batch_size // world_size


@dataclass(frozen=True)
class TrainConfig:
    """How training runs."""

    channels_last: Annotated[bool, Setting("memory format of images and weights")]
    compile: Annotated[bool, Setting("torch.compile the model")]
    deterministic: Annotated[bool, Setting("bit-identical reruns on a GPU, slower; the CPU path always is")]
    label_smoothing: Annotated[float, Setting("of the cross-entropy; images alone", SHARE_BELOW_1)]
    decay_norm_and_bias: Annotated[
        bool, Setting("false: parameters of at most one dimension have no weight decay, for every optimizer alike")
    ]
    eval_every: Annotated[int, Setting("between evaluations; the last epoch is always evaluated", AT_LEAST_1, "epochs")]
    checkpoint_every: Annotated[
        int, Setting("between checkpoints; the last epoch always writes one", AT_LEAST_1, "epochs")
    ]
    oscillation: Annotated[bool, Setting("track Q and a few trajectories (Figures 1 and 2)")] = False
    oscillation_window: Annotated[int, Setting("one window of Q", AT_LEAST_1, "epochs")] = 1
    watched_steps: Annotated[
        int, Setting("of a trajectory: the run's first, middle and last, at most a third each", AT_LEAST_0, "steps")
    ] = 2000
    clip_grad_norm: Annotated[
        float | None,
        Setting(
            "largest norm of the complete gradient; 0 clips nothing; null: the network's recipe, model.clip or 0",
            AT_LEAST_0,
        ),
    ] = field(default=None, metadata={LATER: True})
    watch_every: Annotated[
        int,
        Setting(
            f"between two lines of steps.jsonl, doubled where a run would have more than {MOST_WATCHED:,}; 0: none. "
            "Bears on no result",
            AT_LEAST_0,
            "steps",
        ),
    ] = field(default=50, metadata={LATER: True})


@dataclass(frozen=True)
class ClusterConfig:
    """Where ranks run: nodes × ranks_per_node of them."""

    name: Annotated[Literal["local", "slurm"], Setting("this machine, or jobs")]
    device: Annotated[Literal["cpu", "cuda"], Setting("what a rank computes on")]
    nodes: Annotated[int, Setting("machines of a run", AT_LEAST_1)]
    ranks_per_node: Annotated[int, Setting("processes of a run on each machine, one GPU each", AT_LEAST_1)]
    cpus_per_rank: Annotated[
        int, Setting("Slurm's --cpus-per-task; here what each rank of a run on CPUs takes", AT_LEAST_1, "cores")
    ]
    threads_per_rank: Annotated[int, Setting("torch's intra-op threads; 0 leaves torch's own choice", AT_LEAST_0)]
    partition: Annotated[str | None, Setting("Slurm's --partition; null leaves the site's")]
    account: Annotated[str | None, Setting("Slurm's --account; null leaves the site's")]
    time: Annotated[
        str | None,
        Setting(
            "Slurm's time limit, for instance \"1-00:00:00\"; null leaves the site's; what is not given on the command "
            "line becomes 1.3 times what `adarem probe` measured, at most two days"
        ),
    ]
    max_parallel: Annotated[
        int,
        Setting("runs at a time; 0: on Slurm no limit, here as many as there are free GPUs or cores for", AT_LEAST_0),
    ]
    extra: Annotated[tuple[str, ...], Setting("further sbatch flags of the runs, one text each")]
    setup: Annotated[str, Setting('shell line that each job runs first, for instance "module load cuda"')]
    aux_partition: Annotated[
        str | None, Setting("of the prepare and the report job, which need no GPU; null is partition")
    ] = None
    aux_extra: Annotated[tuple[str, ...], Setting("further sbatch flags of these two")] = ()
    stall_seconds: Annotated[
        float,
        Setting("no progress of a rank for so long ends the run; longer than a first compile", Range(10), "seconds"),
    ] = 600.0

    price_per_gpu_hour: Annotated[
        float | None, Setting("what an hour of one GPU costs, in any currency; plan then prints the money", AT_LEAST_0)
    ] = field(default=None, metadata={LATER: True})

    @property
    def world_size(self) -> int:
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True)
class WandbConfig:
    """Copies of the run on Weights & Biases."""

    mode: Annotated[
        Literal["auto", "online", "offline", "disabled"], Setting("auto: online with a key, offline without")
    ]
    project: Annotated[str, Setting("where runs are filed")]
    entity: Annotated[str | None, Setting("your user or team; null is your default")]


@dataclass(frozen=True)
class RunConfig:
    """Everything that one run needs; ``config.yaml`` in a run directory holds exactly this."""

    grid: str
    run_name: str = field(metadata={KEY: "cell"})  # the name of its folder
    seed: int
    data: DataConfig | TextConfig  # chosen by kind
    model: ModelConfig | LstmConfig | GptConfig | LmConfig  # by kind, and of one kind by name
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


def _check_optimizer(o: OptimizerConfig) -> None:
    if o.imported is not None:  # its settings are known where it can be imported: plan tries them, training passes them
        check_form("optimizer", o.imported)
        if o.source is not None:
            check_name("optimizer.name", o.name)
            require(o.name not in OPTIMIZERS, f"optimizer.name={o.name}: a built-in optimizer's; choose another name")
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
        allowed = known[k].allowed
        if isinstance(allowed, Range):
            v = as_float(v, key)
        require(allowed is None or v in allowed, f"{key}={v}: needs {allowed}")


def _check_model(c: RunConfig) -> None:
    m, d = c.model, c.data
    if isinstance(m, ModelConfig | LmConfig):
        _check_network(m)
    elif isinstance(m, LstmConfig):
        check_lstm(m)
    else:
        check_gpt(m)
    if m.kind == "text":
        require(c.train.label_smoothing == 0, f"train.label_smoothing={c.train.label_smoothing}: {m.name} takes none")
    other = "model=awd_lstm, or grid=table3" if d.kind == "text" else "data=ptb or data=pydoc"
    require(m.kind == d.kind, f"model.name={m.name} reads {m.kind}, data.name={d.name} is {d.kind}; take {other}")


def _check_network(m: ModelConfig | LmConfig) -> None:
    if m.imported is not None:  # its settings are known where it can be imported, as an optimizer's
        check_form("model", m.imported, "model")
        if m.source is not None:
            check_name("model.name", m.name)
            require(m.name not in NETWORKS, f"model.name={m.name}: a built-in network's; choose another name")
        return
    if is_imported(m.name):
        check_form("model.name", m.name, "model")
    elif m.kind == "text" or m.name not in IMAGE_NETWORKS:
        hint = nearest(m.name, [name for name, known in NETWORKS.items() if known.kind == m.kind])
        raise UserError(
            f"model.name={m.name}: unknown model; {hint} (or timm:NAME, torchvision:NAME, MODULE:NAME of a function)"
        )
    for key in m.settings:
        hint = "write a function of yours that builds it so" if is_imported(m.name) else nearest(key, ("name", "label"))
        raise UserError(f"model.{key}: no such key ({m.name}); {hint}")


def check_name(key: str, value: str) -> None:
    """Raises UserError for a name that would not stay inside the folder of the files it names."""
    shown = value if value.isprintable() else ascii(value)
    require(
        bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+=-]{0,63}", value)),
        f"{key}={shown}: names files; use letters, digits and _ . + = -, at most 64, a letter or digit first",
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
        require(
            not any(map(_WANDB_KEY.search, texts)),
            f"{key}: holds what looks like a wandb key, which config.yaml would show; remove it, and export "
            "WANDB_API_KEY in the shell that launches, or let `wandb login` keep it in ~/.netrc",
        )


def _check(c: RunConfig) -> None:
    s = c.scale
    for key, value in (("grid", c.grid), ("data.name", c.data.name), ("scale.name", s.name)):
        check_name(key, value)
    require(c.seed in SEEDS, f"seed={c.seed}: needs an integer of 0 or more, below 2**32")
    _check_no_key(c)
    if isinstance(c.data, DataConfig):
        check_images(c.data)
    require(
        c.schedule.warmup_epochs < s.epochs,
        f"schedule.warmup_epochs={c.schedule.warmup_epochs}: needs 0 up to scale.epochs={s.epochs}",
    )
    require(
        c.schedule.name != "step" or (len(c.schedule.milestones) > 0 and c.schedule.gamma > 0),
        "schedule.milestones, schedule.gamma: a step schedule needs milestones and a positive gamma",
    )
    _check_recipe(c)
    _check_model(c)
    _check_world_size(s.global_batch_size, c.cluster.world_size)
    check_micro_batch(s, c.cluster.world_size)
    _check_optimizer(c.optimizer)


def _check_recipe(c: RunConfig) -> None:
    s, o = c.schedule, c.optimizer
    require(s.min_lr <= o.lr, f"schedule.min_lr={s.min_lr}: larger than optimizer.lr={o.lr}; lower it")
    require(
        not s.min_lr or s.name == "cosine",
        f"schedule.min_lr={s.min_lr}: the {s.name} schedule has no such end; leave it out, or take schedule=cosine",
    )
    require(
        not o.no_decay or c.train.decay_norm_and_bias,
        f"optimizer.no_decay=[{','.join(o.no_decay)}]: train.decay_norm_and_bias=false is another such rule; leave one "
        "out",
    )


def _check_world_size(global_batch_size: int, world_size: int) -> None:
    if global_batch_size % world_size:
        fitting = [w for w in range(1, world_size + 1) if global_batch_size % w == 0]
        raise UserError(
            f"cluster.nodes * cluster.ranks_per_node={world_size} ranks do not divide "
            f"scale.global_batch_size={global_batch_size}; the next smaller world size that does is {fitting[-1]}"
        )


def check_micro_batch(scale: ScaleConfig, world_size: int) -> None:
    """Raises UserError where the passes of a step would be of unlike sizes, which no mean over the batch allows for."""
    micro, of_rank = scale.micro_batch_size, scale.global_batch_size // world_size
    if micro is None or of_rank % micro == 0:
        return
    smaller = max(n for n in range(1, min(micro, of_rank) + 1) if of_rank % n == 0)
    larger = next((f" or {n}" for n in range(micro + 1, of_rank + 1) if of_rank % n == 0), "")
    raise UserError(
        f"scale.micro_batch_size={micro}: does not divide {of_rank}, a rank's part of scale.global_batch_size="
        f"{scale.global_batch_size} at a world size of {world_size}; take {smaller}{larger}"
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
    """The plain-dict form, as written to config.yaml: ``from_dict(to_dict(c)) == c``.

    Settings that came after version 0.1 are left out while they have their default.
    """
    raw = json.loads(json.dumps(dataclasses.asdict(config)))
    if (source := raw["optimizer"].pop("source")) is not None:
        raw["optimizer"]["class"] = source
    raw["optimizer"].update(raw["optimizer"].pop("hparams"))
    if "settings" in raw["model"]:
        raw["model"]["class"] = raw["model"].pop("source")
        raw["model"].update(raw["model"].pop("settings"))
    for key in unset(config):
        *sections, leaf = key.split(".")
        del functools.reduce(operator.getitem, sections, raw)[leaf]
    return {"cell" if key == "run_name" else key: value for key, value in raw.items()}
