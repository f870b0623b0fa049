"""All that is known of optimizers, networks, data sets and metrics; no other module repeats such a fact.

No library but the standard one. ``configs/`` holds settings, which a user overrides; what no user chooses is here: the
names that tables print, legal ranges, how curves look, what the paper has.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from adarem.run.build import nearest
from adarem.run.errors import UserError
from adarem.run.setting import SHARE, Choices, Range, Setting

Kind: TypeAlias = Literal["images", "text"]
LineStyle: TypeAlias = str | tuple[int, tuple[int, ...]]  # as matplotlib takes it: "-", or offset and dashes


@dataclass(frozen=True)
class Optimizer:
    """``hparams`` are the settings that it takes next to lr and weight_decay."""

    label: str  # as tables print it
    decay: str  # how weight decay is applied, in words
    color: str  # Okabe and Ito's palette, which colour-blind readers can tell apart
    line: LineStyle  # distinguishes curves in black and white
    marker: str = ""
    hparams: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """A network with a name of its own; any other of timm or torchvision is ``timm:NAME``, ``torchvision:NAME``."""

    label: str
    kind: Kind
    library: Literal["torchvision", "adarem"]
    builder: str  # the library's name of it
    arguments: Mapping[str, float] = field(default_factory=dict)  # of the builder
    paper_sizes: Mapping[str, int] = field(default_factory=dict)  # keys of the model's config and the paper's values
    of_paper: bool = True
    batch_norm: bool = False  # its result depends on how many images are normalised together


@dataclass(frozen=True)
class PaperScale:
    """How much the paper trains on a data set."""

    epochs: int
    global_batch_size: int
    lr_factor: float = 1.0  # on the stated base rate
    normalised_together: int | None = None  # images that a BatchNorm sees at once: of one GPU; None: no BatchNorm


@dataclass(frozen=True)
class DataSet:
    """A data set with a name of its own."""

    label: str
    kind: Kind
    counts: Mapping[str, int | None]  # split to images or tokens (end-of-sentence included) of the full set
    default_scale: str  # of configs/scale, where the user names none
    paper_scale: PaperScale | None = None  # None: not of the paper
    # Global batch to the images that a BatchNorm sees at once on the ranks that configs start. One rank that takes the
    # batch in as many passes is the same run.
    normalised_on_ranks: Mapping[int, int] = field(default_factory=dict)
    in_folder_name: bool = True  # False: a sweep's folder does not name it, since the paper's own setting has it


@dataclass(frozen=True)
class Metric:
    """A figure of merit of a finished run. ``curve``: the split and the key under which its epochs are recorded."""

    label: str
    lower_is_better: bool
    unit: str = ""  # of differences, where they have one
    curve: tuple[str, str] | None = None
    decides: bool = True  # False: shown, and never tested
    held_out: str | None = None  # the same of held-out training images, where a run may have that in its place

    @property
    def direction(self) -> Literal["lowest", "highest"]:
        """Which value is the best."""
        return "lowest" if self.lower_is_better else "highest"

    def better(self, a: float, b: float) -> bool:
        """Whether a is better than b."""
        return a < b if self.lower_is_better else a > b


_ADDED = "added to the gradient"
_DECOUPLED = "decoupled, × lr"
_EPS = Setting("added to the denominator", SHARE)
_ADAM: Mapping[str, Setting] = {
    "beta1": Setting("decay of the gradient's moving average, a step", SHARE),
    "beta2": Setting("decay of the squared gradient's moving average, a step", SHARE),
    "eps": _EPS,
}
_ADAREM: Mapping[str, Setting] = {
    "beta": Setting("decay of the gradient's moving average m, a step", SHARE),
    "lam": Setting("λ: what the adaption is multiplied by, again and again", SHARE),
    "decay_every": Setting("when λ is multiplied: once an epoch, or at every step", Choices(("epoch", "step"))),
    "eps": Setting("in b's denominator; 0 is the exact sign form", SHARE),
    "scope": Setting("what max |m| is over: each tensor, or all parameters", Choices(("tensor", "model"))),
}
_MOMENTUM = Setting("share of the step before that is added", SHARE)

OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": Optimizer("SGD", _ADDED, "#7F7F7F", "--"),
    "sgdm": Optimizer(
        "SGDM",
        _ADDED,
        "#000000",
        "-",
        hparams={
            "momentum": _MOMENTUM,
            "dampening": Setting("share of the gradient that momentum leaves out", SHARE),
            "nesterov": Setting("the gradient is that after the step of the momentum", Choices((True, False))),
        },
    ),
    "adam": Optimizer("Adam", _ADDED, "#E69F00", "--", hparams=_ADAM),
    "adamw": Optimizer("AdamW", _DECOUPLED, "#56B4E9", "-.", hparams=_ADAM),
    "adabound": Optimizer(
        "AdaBound",
        _ADDED,
        "#009E73",
        (0, (5, 1, 1, 1, 1, 1)),
        hparams={
            **_ADAM,
            "final_lr": Setting("the rate of SGD that it ends as, at the base rate", Range(0, 1e6)),
            "gamma": Setting("how fast the bounds converge, a step", SHARE),
        },
    ),
    "rmsprop": Optimizer(
        "RMSprop",
        _ADDED,
        "#CC79A7",
        ":",
        hparams={
            "alpha": Setting("decay of the squared gradient's moving average, a step", SHARE),
            "eps": _EPS,
            "momentum": _MOMENTUM,
        },
    ),
    "adarem": Optimizer("AdaRem", _DECOUPLED, "#D55E00", "-", "o", _ADAREM),
    "adarem_s": Optimizer(
        "AdaRem-S",
        f"sphere: through the sphere lr; others: {_DECOUPLED}",
        "#0072B2",
        "-",
        "s",
        {
            **_ADAREM,
            "sphere": Setting(
                "one sphere for each scale-invariant tensor, or one for all", Choices(("tensor", "model"))
            ),
            "slr": Setting("the sphere learning rate; false is Algorithm 2 as printed", Choices((True, False))),
        },
    ),
}

NETWORKS: Mapping[str, Network] = {
    "resnet18": Network("ResNet-18", "images", "torchvision", "resnet18", batch_norm=True),
    "resnet50": Network("ResNet-50", "images", "torchvision", "resnet50", batch_norm=True),
    "mobilenet_v2_1.0": Network("MobileNetV2-1.0", "images", "torchvision", "mobilenet_v2", batch_norm=True),
    "mobilenet_v2_0.5": Network(
        "MobileNetV2-0.5", "images", "torchvision", "mobilenet_v2", {"width_mult": 0.5}, batch_norm=True
    ),
    "shufflenet_v2_1.0": Network("ShuffleNetV2-1.0", "images", "torchvision", "shufflenet_v2_x1_0", batch_norm=True),
    "shufflenet_v2_0.5": Network("ShuffleNetV2-0.5", "images", "torchvision", "shufflenet_v2_x0_5", batch_norm=True),
    # Sizes of Merity et al. 2017, whose model section 4.2 takes.
    "awd_lstm": Network(
        "AWD-LSTM", "text", "adarem", "awd_lstm", paper_sizes={"layers": 3, "hidden": 1150, "embedding": 400}
    ),
    "gpt": Network("GPT", "text", "adarem", "gpt", of_paper=False),
}
IMAGE_NETWORKS = tuple(name for name, network in NETWORKS.items() if network.kind == "images")

# Scales: section 4.1.1; section 4.2 and, for the batch, the code of Merity et al. 2017.
DATA_SETS: Mapping[str, DataSet] = {
    "imagenet": DataSet(
        "ImageNet",
        "images",
        {"train": 1281167, "val": 50000},
        "paper",
        PaperScale(100, 1024, normalised_together=64),
        in_folder_name=False,
    ),
    "ptb": DataSet(
        "Penn Treebank",
        "text",
        {"train": 929589, "val": 73760, "test": 82430},
        "paper_text",
        PaperScale(100, 20),
        in_folder_name=False,
    ),
    "digits": DataSet(
        "embedded digits", "images", {"train": 1437, "val": 360}, "rehearsal", normalised_on_ranks={64: 32}
    ),
    "imagenette": DataSet("Imagenette", "images", {"train": 9469, "val": 3925}, "small"),
    "imagenet100": DataSet("ImageNet-100", "images", {"train": 126689, "val": 5000}, "imagenet_256"),
    "imagenet64": DataSet("ImageNet-64", "images", {"train": 1281167, "val": 50000}, "imagenet_256"),
    "cifar10": DataSet("CIFAR-10", "images", {"train": 50000, "val": 10000}, "cifar"),
    "cifar100": DataSet("CIFAR-100", "images", {"train": 50000, "val": 10000}, "cifar"),
    "fashion_mnist": DataSet("Fashion-MNIST", "images", {"train": 60000, "val": 10000}, "small"),
    # Its counts differ with the version of Python.
    "pydoc": DataSet("embedded Python reference", "text", {"train": None, "val": None, "test": None}, "rehearsal_text"),
}

# Sections 4.1.1 and 4.2, neither with a warm-up.
PAPER_SCHEDULE: Mapping[Kind, str] = {"images": "cosine", "text": "step"}

METRICS: Mapping[str, Metric] = {
    "top1": Metric("Top-1", False, "points", ("val", "top1"), held_out="holdout_top1"),
    "top5": Metric("Top-5", False, "points", ("val", "top5"), held_out="holdout_top5"),
    "holdout_top1": Metric("Held-out top-1", False, "points", ("holdout", "top1")),
    "holdout_top5": Metric("Held-out top-5", False, "points", ("holdout", "top5")),
    "perplexity": Metric("Perplexity", True),
    "val_perplexity": Metric("Validation perplexity", True, curve=("val", "perplexity")),
    # The mean of l / d has no expectation where d may be 0: shown as the paper defines it, and decided by the median.
    "mean_q_median_with_gradient": Metric("Median q over training", True),
    "mean_q_mean": Metric("Q over training", True, decides=False),
    "q_mean": Metric("Q", True, decides=False),
}

# Settings whose own name is not what one reads.
SYMBOLS = {"lam": "λ", "beta": "β", "beta1": "β1", "beta2": "β2", "eps": "ε", "alpha": "α", "gamma": "γ"}


def metric_named(name: str) -> Metric:
    """Raises UserError for an unknown one, with the nearest valid name."""
    if name not in METRICS:
        raise UserError(f"{name}: {nearest(name, METRICS)}")
    return METRICS[name]


def default_scale(data: str) -> str:
    """The scale at which a data set is used where the user names none; any other goes into a sweep's name."""
    return DATA_SETS[data].default_scale if data in DATA_SETS else "small"
