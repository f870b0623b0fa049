"""CIFAR and Fashion-MNIST: small sets in the layout of the real ones, and Debian's real Fashion-MNIST."""

import gzip
import hashlib
import pickle
import tarfile
import urllib.error
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets as tv

from adarem.data import is_prepared
from adarem.data.images import torchvision_sets
from adarem.data.images.open_source import open_source
from adarem.data.images.source import decode_rgb
from adarem.data.images.torchvision_sets import SETS, download, files_are_there
from adarem.data.loaders import open_eval
from adarem.data.prepare import prepare
from adarem.plan.plan import make_plan
from adarem.run.catalog import DATA_SETS
from adarem.run.config import DataConfig, WriteConfig
from adarem.run.errors import UserError
from adarem.run.identity import identity
from tests.support.photos import data_config

READY_MADE = ("imagenette", "imagenet100", "imagenet64", *SETS)


def config(source: str, root: Path, **more: object) -> DataConfig:
    side = 28 if source == "fashion_mnist" else 32
    write = WriteConfig(mode="raw", max_side=side, jpeg_quality=90, compress_probability=0.0)
    classes = 100 if source == "cifar100" else 10
    size = {"train_crop": side, "eval_resize": side, "eval_crop": side, "workers": 1}
    return data_config(root, name=source, label=source, source=source, num_classes=classes, write=write, **size, **more)


def pixels(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes 100 + 20 images in CIFAR's layout, and makes torchvision's list of checksums that of these files."""

    def make(name: str) -> Path:
        kind = {"cifar10": tv.CIFAR10, "cifar100": tv.CIFAR100}[name]
        classes = 10 if name == "cifar10" else 100
        folder = tmp_path / name / SETS[name]
        folder.mkdir(parents=True)
        key, names = kind.meta["key"], [f"kind{c:02d}" for c in range(classes)]
        contents: dict[str, dict] = {kind.meta["filename"]: {key: names}}
        label_key = "labels" if name == "cifar10" else "fine_labels"
        for k, (file, _) in enumerate([*kind.train_list, *kind.test_list]):
            n = 20 if name == "cifar10" or file == "test" else 100
            labels = [(7 * i + k) % classes for i in range(n)]
            contents[file] = {"data": pixels(n, 3072, seed=k), label_key: labels}
        sums = {}
        for file, content in contents.items():
            (folder / file).write_bytes(pickle.dumps(content))
            sums[file] = hashlib.md5((folder / file).read_bytes()).hexdigest()
        for listed in ("train_list", "test_list"):
            monkeypatch.setattr(kind, listed, [[file, sums[file]] for file, _ in getattr(kind, listed)])
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums[kind.meta["filename"]]})
        return folder.parent

    return make


def write_fashion(folder: Path, packed: bool) -> dict[str, np.ndarray]:
    """Fashion-MNIST's four files with 40 + 12 images; returns the images by split."""
    folder.mkdir(parents=True)
    images = {}
    for split, file, n in (("train", "train", 40), ("val", "t10k", 12)):
        images[split] = pixels(n, 28, 28, seed=n)
        for what, magic, array in (
            ("images-idx3", 2051, images[split]),
            ("labels-idx1", 2049, (np.arange(n) * 3 % 10).astype(np.uint8)),
        ):
            head = np.array([magic, *array.shape], ">i4").tobytes()
            path, content = folder / f"{file}-{what}-ubyte", head + array.tobytes()
            if packed:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return images


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(cifar: Callable[[str], Path], name: str) -> None:
    data = config(name, cifar(name))
    sources = open_source(data)
    kind = {"cifar10": tv.CIFAR10, "cifar100": tv.CIFAR100}[name]
    for split, n in (("train", 100), ("val", 20)):
        source, reference = sources[split], kind(data.root, train=split == "train")
        assert len(source) == n and source.labels.tolist() == reference.targets  # in the set's own order
        assert source.classes == tuple(reference.classes) and source.files[0].startswith(f"kind{source.labels[0]:02d}/")
        for i in (0, n - 1):
            assert (decode_rgb(source.images[i].read()) == reference.data[i]).all()
    assert sources["train"].listing_hash != sources["val"].listing_hash


@pytest.mark.parametrize("backend", ["ffcv", "folder"])
@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_every_pixel_reaches_the_network(cifar: Callable[[str], Path], name: str, backend: str, tmp_path: Path) -> None:
    if name == "cifar10":
        data = config(name, cifar(name), backend=backend)
        expected = tv.CIFAR10(data.root, train=False).data
    else:
        data = config(name, tmp_path / "fashion", backend=backend)
        grey = write_fashion(Path(data.root), packed=True)["val"]
        expected = np.repeat(grey[..., None], 3, axis=-1)
    assert not is_prepared(data)
    made = prepare(data, workers=1, progress=False)
    assert is_prepared(data) and prepare(data, workers=1, verify=True, progress=False) == made
    loader = open_eval(data, batch_size=64, rank=0, world_size=1, device="cpu")
    ((_, images, labels),) = list(loader)
    loader.close()
    assert (images.permute(0, 2, 3, 1).numpy() == expected).all()
    assert labels.tolist() == open_source(data)["val"].labels.tolist()


def test_what_is_not_the_known_file_is_never_unpickled(cifar: Callable[[str], Path], tmp_path: Path) -> None:
    root = cifar("cifar10")

    class Attack:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
            return (open, (str(tmp_path / "hacked"), "w"))

    for file in ("data_batch_3", "test_batch", "batches.meta"):
        path = root / SETS["cifar10"] / file
        before = path.read_bytes()
        path.write_bytes(pickle.dumps(Attack()))
        with pytest.raises(UserError, match=r"a file is missing or damaged .*; remove that folder .* --download") as e:
            open_source(config("cifar10", root))
        path.write_bytes(before)
        assert "\n" not in str(e.value) and not (tmp_path / "hacked").exists()
    assert len(open_source(config("cifar10", root))["train"]) == 100


@pytest.mark.parametrize(("folder", "packed"), [("FashionMNIST/raw", False), ("FashionMNIST/raw", True), ("", True)])
def test_fashion_mnist_where_torchvision_and_where_debian_puts_it(folder: str, packed: bool, tmp_path: Path) -> None:
    data = config("fashion_mnist", tmp_path / "root")
    assert not files_are_there(data)
    images = write_fashion(tmp_path / "root" / folder, packed)
    before = sorted(p for p in tmp_path.rglob("*"))
    sources = open_source(data)
    assert files_are_there(data) and (len(sources["train"]), len(sources["val"])) == (40, 12)
    assert sources["train"].classes[0] == "T-shirt_top" and sources["train"].labels.tolist()[:4] == [0, 3, 6, 9]
    assert (decode_rgb(sources["val"].images[5].read()) == images["val"][5][..., None]).all()
    assert sorted(p for p in tmp_path.rglob("*")) == before  # a folder that is only read stays as it is


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_damaged_files_are_one_line(damage: str, tmp_path: Path) -> None:
    data = config("fashion_mnist", tmp_path / "root")
    write_fashion(tmp_path / "root", packed=True)
    train, test = (tmp_path / "root" / f"{split}-labels-idx1-ubyte.gz" for split in ("train", "t10k"))
    train.write_bytes(train.read_bytes()[:-9] if damage == "cut" else test.read_bytes())
    said = "a file is missing or damaged .*; `apt-get install dataset-fashion-mnist`"
    with pytest.raises(UserError, match=said) as e:
        open_source(data)
    assert "\n" not in str(e.value)


def no_network(*_: object, **__: object) -> None:
    raise urllib.error.URLError("Name or service not known")


@pytest.mark.parametrize("name", sorted(SETS))
def test_a_download_without_a_network(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(UserError) as e:
        download(config(name, tmp_path / "root"))
    said = str(e.value)
    assert said.startswith("http") and "cannot be fetched" in said and "Name or service not known" in said
    place = tmp_path / "root" / (SETS[name] if name == "fashion_mnist" else "")
    assert f"fetch it on a machine with a network, put it into {place} and run the same command again" in said
    assert "\n" not in said


def test_what_was_fetched_by_hand_is_checked_and_unpacked(
    cifar: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, root = cifar("cifar10"), tmp_path / "mine"
    root.mkdir()
    with tarfile.open(root / tv.CIFAR10.filename, "w:gz") as archive:
        archive.add(made / SETS["cifar10"], SETS["cifar10"])
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(UserError, match="cannot be fetched"):  # another archive than the known one
        download(config("cifar10", root))
    assert not (root / SETS["cifar10"]).exists()
    monkeypatch.setattr(tv.CIFAR10, "tgz_md5", hashlib.md5((root / tv.CIFAR10.filename).read_bytes()).hexdigest())
    download(config("cifar10", root))
    assert len(open_source(config("cifar10", root))["val"]) == 20
    download(config("cifar10", root))  # there already


def test_downloads_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"--download: data=photos is not fetched .* data=cifar10, data=cifar100, data="
    ):
        download(data_config(tmp_path))
    monkeypatch.setattr(torchvision_sets, "_SYSTEM", tmp_path / "debian")
    with pytest.raises(UserError, match="debian: is a package's; give a folder of yours"):
        download(config("fashion_mnist", tmp_path / "debian"))
    with pytest.raises(UserError, match="cifar10 has a validation set of its own; leave it out"):
        make_plan(["data=cifar10", f"data.root={tmp_path}", "data.val_share=0.1"])
    with pytest.raises(UserError, match="torchvision, which reads data=cifar10, knows what validates; leave it out"):
        make_plan(["data=cifar10", f"data.root={tmp_path}", "data.val_folder=test"])


@pytest.mark.parametrize("name", READY_MADE)
def test_ready_made_files(name: str, tmp_path: Path) -> None:
    root = [] if name == "fashion_mnist" else [f"data.root={tmp_path}"]
    plan = make_plan([f"data={name}", "optimizer=sgdm", f"runs_dir={tmp_path}", *root])
    (planned,) = plan.runs
    c, known = planned.config, DATA_SETS[name]
    assert isinstance(c.data, DataConfig) and plan.folder.name == f"table2-{name}"
    assert (c.data.label, c.data.expected_train, c.data.expected_val) == (known.label, *known.counts.values())
    assert planned.standing.kind == "rehearsal" and not c.data.embedded and c.cluster.name == "local"
    assert identity(c).get("data.source") == (name if name in SETS else None)
    assert c.data.train_crop <= c.data.write.max_side and c.scale.name == known.default_scale
    assert c.optimizer.lr * c.scale.lr_factor == pytest.approx(0.1)  # the rate of He et al. 2016


def test_debians_fashion_mnist(tmp_path: Path) -> None:
    """60,000 and 10,000 real images, found without data.root being given."""
    data = make_plan(["data=fashion_mnist", f"runs_dir={tmp_path}"]).runs[0].config.data
    assert isinstance(data, DataConfig)
    if not files_are_there(data):
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    sources = open_source(data)
    for split, n in (("train", 6000), ("val", 1000)):
        assert np.bincount(sources[split].labels).tolist() == [n] * 10
    first = decode_rgb(sources["train"].images[0].read())
    assert first.shape == (28, 28, 3) and sources["train"].files[0].startswith("Ankle boot/00000-")
