"""What a config holds: the dataclasses of one resolved run, and the tables of known networks and hyper-parameters.

Standard library only. ``adarem.config`` builds and checks them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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


PAPER_SCALE = (100, 1024, 1.0)  # epochs, global batch, factor on the base rate: section 4.1.1


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
    watched_steps: int = 2000  # steps of the trajectories, from the run's first


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
        scale = (self.scale.epochs, self.scale.global_batch_size, self.scale.lr_factor)
        if self.data.name == "imagenet" and not self.data.embedded and scale == PAPER_SCALE:
            return None
        return (
            f"{self.data.label}, {self.scale.epochs} epochs, global batch {self.scale.global_batch_size}: "
            "shows that the pipeline works, says nothing about the paper's claims"
        )
