"""What a config holds: the dataclasses of one resolved run, and the tables of known networks and hyper-parameters.

Standard library only. ``adarem.run.config`` builds and checks them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adarem.run.catalog import IMAGE_NETWORKS, OPTIMIZERS, Range

# Views of the catalog under their names of before, until every caller asks the catalog.
MODELS = IMAGE_NETWORKS
HYPER: dict[str, dict[str, tuple[float, float] | None]] = {
    name: {k: (h.low, h.high) if isinstance(h, Range) else None for k, h in optimizer.hparams.items()}
    for name, optimizer in OPTIMIZERS.items()
}


def variant(settings: Mapping[str, Any]) -> str:
    """What tells a cell from the grid's own, settings off its axes: ``lam=0.9, weight_decay=0.0005``, else empty."""
    return ", ".join(f"{k.rsplit('.', 1)[-1]}={v}" for k, v in sorted(settings.items()))


@dataclass(frozen=True)
class WriteConfig:
    """How images are stored in a .beton file."""

    mode: Literal["raw", "proportion", "jpg"]
    max_side: int  # pixels; longer sides are scaled down to this before storing
    jpeg_quality: int  # 1 to 100, of the images stored as JPEG
    compress_probability: float  # share stored as JPEG when mode is "proportion"


@dataclass(frozen=True)
class DataConfig:
    """One set of images, where it lies and what the network sees of it."""

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
    kind: Literal["images"] = "images"


@dataclass(frozen=True)
class TextConfig:
    """One corpus: <root>/<name>.train.txt, .valid.txt and .test.txt, a sentence a line, words between spaces."""

    kind: Literal["text"]
    name: str
    label: str  # as printed: "Penn Treebank"
    root: str
    embedded: bool  # made on this machine from data inside a package; never a reproduction
    vocabulary: int  # distinct words, end-of-sentence included
    expected_train: int | None  # tokens of the genuine files, end-of-sentence included; others are refused
    expected_val: int | None
    expected_test: int | None


@dataclass(frozen=True)
class ModelConfig:
    """A network for images."""

    name: str  # one of MODELS, timm:NAME or torchvision:NAME
    label: str  # as the paper prints it
    kind: Literal["images"] = "images"


@dataclass(frozen=True)
class DropoutConfig:
    """Probabilities of the AWD-LSTM's dropouts; each draws one mask a batch."""

    words: float  # whole words of the embedding
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
    bptt: int  # time steps that a gradient goes back through, on the whole; the rate is scaled by length / bptt
    bptt_half: float  # probability that the length is drawn around half of bptt
    bptt_deviation: float  # time steps, standard deviation of a length
    bptt_least: int  # shortest length
    activation_reg: float  # on the last layer's dropped output
    temporal_reg: float  # on the steps of the last layer's output
    clip: float  # largest norm of the whole gradient; 0 clips nothing
    average_after: int  # NT-ASGD: average once this many epochs passed without a better validation; 0 never does


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
    """Everything that one run needs. ``config.yaml`` in a run directory is this, nothing more and nothing less."""

    grid: str
    cell: str
    seed: int
    data: DataConfig | TextConfig  # chosen by kind
    model: ModelConfig | LstmConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    scale: ScaleConfig
    train: TrainConfig
    cluster: ClusterConfig
    wandb: WandbConfig
    overrides: Mapping[str, Any] = field(default_factory=dict)  # off the grid's axes, as the cell's name shows them

    @property
    def rehearsal(self) -> str | None:
        """None for a run that counts as a reproduction (the paper's data and scale), else one line on what it is."""
        from adarem.run.reproduction import standing_of_run  # which imports this module

        return standing_of_run(self, None).rehearsal


@dataclass(frozen=True)
class GridFile:
    """What a file of ``configs/grid`` holds: one table or figure."""

    name: str
    title: str
    axes: Mapping[str, Any]  # key to the list of its values; model and optimizer are there
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    selection: str = "final epoch"
    heading: str | None = None
    paper: str | None = None  # results/paper/<paper>
    figure: str | None = None
    settings: tuple[str, ...] | None = None  # overrides of every cell
    variants: Mapping[str, Any] | None = None  # label to settings off the axes
    search: Mapping[str, Any] | None = None  # optimizer to axes of its own
    winners: str | None = None  # the grid of a search
