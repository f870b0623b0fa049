"""The data sections of a config: a set of images, a text; and what a set of images has to fulfil."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from adarem.run.build import LATER
from adarem.run.errors import UserError
from adarem.run.setting import AT_LEAST_0, AT_LEAST_1, SHARE, Range, Setting

EvaluationSplit: TypeAlias = Literal["val", "holdout"]


@dataclass(frozen=True)
class WriteConfig:
    """How images are stored in a .beton file."""

    mode: Annotated[Literal["raw", "proportion", "jpg"], Setting("store pixels, JPEGs, or a share of each")]
    max_side: Annotated[int, Setting("longer sides are scaled down to this before storing", AT_LEAST_1, "pixels")]
    jpeg_quality: Annotated[int, Setting("of the images stored as JPEG", Range(1, 100))]
    compress_probability: Annotated[float, Setting("share stored as JPEG where mode is proportion", SHARE)]


@dataclass(frozen=True)
class DataConfig:
    """One set of images, where it lies and how the network gets them."""

    name: Annotated[str, Setting("of the data set; goes into the names of sweeps")]
    label: Annotated[str, Setting("as printed")]
    root: Annotated[str, Setting("folder with train/<class>/* and val/<class>/*, or with <class>/* alone (val_share)")]
    beton_dir: Annotated[str, Setting("folder of train.beton and val.beton")]
    backend: Annotated[
        Literal["ffcv", "folder"], Setting("FFCV's files, or plain torchvision loading: slower, FFCV's control")
    ]
    embedded: Annotated[bool, Setting("made on this machine from data inside a package; never a reproduction")]
    num_classes: Annotated[int, Setting("class folders of each split", AT_LEAST_1)]
    expected_train: Annotated[int | None, Setting("of the full data set; other counts are warned about", unit="images")]
    expected_val: Annotated[int | None, Setting("as expected_train", unit="images")]
    train_crop: Annotated[int, Setting("side of the random resized crop", AT_LEAST_1, "pixels")]
    crop_area: Annotated[tuple[float, ...], Setting("smallest and largest share of the image's area: above 0 to 1")]
    crop_aspect: Annotated[tuple[float, ...], Setting("smallest and largest width / height of a crop: above 0")]
    flip: Annotated[float, Setting("probability of a horizontal flip", SHARE)]
    eval_resize: Annotated[int, Setting("shorter side before the centre crop", AT_LEAST_1, "pixels")]
    eval_crop: Annotated[int, Setting("side of the centre crop, at most eval_resize", AT_LEAST_1, "pixels")]
    mean: Annotated[tuple[float, ...], Setting("subtracted from each of three channels", unit="pixel / 255")]
    std: Annotated[tuple[float, ...], Setting("divides each of three channels: above 0", unit="pixel / 255")]
    workers: Annotated[int, Setting("loader threads (ffcv) or processes (folder) per rank", AT_LEAST_1)]
    write: WriteConfig
    kind: Literal["images"] = "images"
    source: Annotated[
        Literal["folder", "cifar10", "cifar100", "fashion_mnist"],
        Setting("folders of image files, or the files that torchvision's class of that name downloads"),
    ] = field(default="folder", metadata={LATER: True})
    val_folder: Annotated[str, Setting("folder of the validation images, next to train; data=folder finds it")] = field(
        default="val", metadata={LATER: True}
    )
    val_share: Annotated[
        float | None,
        Setting("of each class, for validation, where root holds the classes", Range(0, 1, above=True, below=True)),
    ] = field(default=None, metadata={LATER: True})
    split_seed: Annotated[int, Setting("of that split: which images validate", AT_LEAST_0)] = field(
        default=0, metadata={LATER: True}
    )
    listing: Annotated[str | None, Setting("hash of the names and sizes of the images that plan found")] = field(
        default=None, metadata={LATER: True}
    )
    holdout: Annotated[
        int | float | None,
        Setting(
            "training images that the run is evaluated on in place of val, which it never opens: a number, or a share "
            "below 1, the same of each class; null or 0: none; auto: 50,000, or 4 % of smaller sets, as a search has it"
        ),
    ] = field(default=None, metadata={LATER: True})
    holdout_seed: Annotated[int, Setting("of that part: which images are held out", AT_LEAST_0)] = field(
        default=0, metadata={LATER: True}
    )

    @property
    def evaluated_on(self) -> EvaluationSplit:
        """The split that training is evaluated on, as records name it."""
        return "val" if self.holdout is None else "holdout"


@dataclass(frozen=True)
class TextConfig:
    """One corpus: <root>/<name>.train.txt, .valid.txt and .test.txt, one sentence per line, words between spaces."""

    kind: Literal["text"]
    name: Annotated[str, Setting("of the corpus; goes into the names of sweeps")]
    label: Annotated[str, Setting("as printed")]
    root: Annotated[str, Setting("folder of the three files")]
    embedded: Annotated[bool, Setting("made on this machine from data inside a package; never a reproduction")]
    vocabulary: Annotated[int, Setting("distinct words, end-of-sentence included", Range(2))]
    expected_train: Annotated[
        int | None, Setting("of the full file, end-of-sentence included; other counts are refused", unit="tokens")
    ]
    expected_val: Annotated[int | None, Setting("as expected_train", unit="tokens")]
    expected_test: Annotated[int | None, Setting("as expected_train", unit="tokens")]

    @property
    def evaluated_on(self) -> EvaluationSplit:
        """As of images; the test text comes after training."""
        return "val"


def require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


def check_images(d: DataConfig) -> None:
    require(d.eval_crop <= d.eval_resize, f"data.eval_crop={d.eval_crop}: larger than data.eval_resize={d.eval_resize}")
    for key, pair, low in (("data.crop_area", d.crop_area, 0.0), ("data.crop_aspect", d.crop_aspect, 0.0)):
        require(len(pair) == 2 and low < pair[0] <= pair[1], f"{key}={list(pair)}: needs [smallest, largest], above 0")
    require(d.crop_area[1] <= 1, f"data.crop_area={list(d.crop_area)}: a share of the image's area is at most 1")
    require(
        d.source == "folder" or d.val_share is None,
        f"data.val_share={d.val_share}: data={d.name} has a validation set of its own; leave it out",
    )
    require(
        d.source == "folder" or d.val_folder == "val",
        f"data.val_folder={d.val_folder}: torchvision, which reads data={d.name}, knows what validates; leave it out",
    )
    require(
        d.val_folder not in ("", ".", "..") and "/" not in d.val_folder,
        f"data.val_folder={d.val_folder}: needs the name of a folder in data.root",
    )
    require(
        d.holdout is not None or not d.holdout_seed,
        f"data.holdout_seed={d.holdout_seed}: nothing is held out; give data.holdout too, or leave it out",
    )
    require(
        d.holdout is None or (d.holdout > 0 if isinstance(d.holdout, int) else 0 < d.holdout < 1),
        f"data.holdout={d.holdout}: needs a whole number of training images, or a share of them below 1, such as 0.04",
    )
    require(
        len(d.mean) == 3 and len(d.std) == 3 and min(d.std) > 0, "data.mean, data.std: need three values, std above 0"
    )
