"""data=folder: what plan finds, what it refuses, and that nothing passes for a set that it is not."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adarem.data import is_prepared
from adarem.data.images.own_folder import safe_name
from adarem.data.loaders import open_eval
from adarem.data.prepare import prepare
from adarem.data.prepared import check_prepared
from adarem.plan.plan import Plan, make_plan
from adarem.run.config import DataConfig, from_dict, to_dict
from adarem.run.errors import UserError
from adarem.run.identity import config_hash, identity
from tests.support.own_images import make_folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(root: object, *more: str) -> Plan:
    return make_plan(["data=folder", f"'data.root={root}'" if " " in str(root) else f"data.root={root}", *more])


def data_of(found: Plan) -> DataConfig:
    assert isinstance(data := found.runs[0].config.data, DataConfig)
    return data


@pytest.mark.parametrize("folder", ["val", "valid", "validation", "test"])
def test_train_and_a_folder_for_validation(here: Path, folder: str) -> None:
    make_folder(here / "birds" / "train", 5, 6, 7)
    make_folder(here / "birds" / folder, 2, 2, 2)
    found = plan(here / "birds")
    data = data_of(found)
    assert (data.name, data.label, data.num_classes) == ("birds", "birds", 3)
    assert (data.expected_train, data.expected_val, data.val_folder, data.val_share) == (18, 6, folder, None)
    assert found.folder.name == "table2-birds" and Path(data.beton_dir).parent == here / "data"
    assert f"3 classes, 18 images for training, 6 for validation (val/ is {folder}/)" in found.describe()
    assert all(from_dict(to_dict(p.config)) == p.config for p in found.runs)
    assert plan("birds").runs[0].config == found.runs[0].config  # of a path as it is typed


def test_a_flat_folder(here: Path) -> None:
    make_folder(here / "birds", 10, 10)
    data = data_of(plan(here / "birds"))
    assert (data.expected_train, data.expected_val, data.val_share, data.split_seed) == (16, 4, 0.2, 0)
    other = plan(here / "birds", "data.split_seed=1", "data.val_share=0.4")
    assert data_of(other).expected_val == 8 and other.runs[0].config.run_name.startswith("resnet18-sgdm-split_seed=1-")
    assert {"data.split_seed", "data.val_share", "data.listing"} <= identity(other.runs[0].config).keys()


def test_it_is_a_data_set_of_its_own(here: Path) -> None:
    """Also where the folder is called ImageNet and holds as many images: no reproduction, and no such label."""
    make_folder(here / "ImageNet", 4, 4)
    make_folder(here / "imagenet", 4, 4)
    named = plan("ImageNet")
    assert data_of(named).label == "ImageNet (a folder)" and named.runs[0].standing.kind == "rehearsal"
    lower = plan("imagenet", "scale=paper", "cluster=slurm", "data.expected_train=1281167", "data.expected_val=50000")
    assert data_of(lower).name == "imagenet_folder" and lower.runs[0].standing.kind == "rehearsal"
    for given, said in (
        ("data.name=imagenet", "data.name=imagenet: a built-in data set's"),
        ("data.label=ImageNet", "data.label=ImageNet: a built-in data set's"),
    ):
        with pytest.raises(UserError, match=said):
            plan("ImageNet", given)
    mine = plan("ImageNet", "data.name=mine", "data.label='My birds'")
    assert (data_of(mine).name, data_of(mine).label) == ("mine", "My birds")
    assert mine.runs[0].config.run_name == "resnet18-sgdm-s0"


@pytest.mark.parametrize(
    ("folder", "name"),
    [("My flowers (2)", "My_flowers_2"), ("Blüten", "Bl_ten"), ("...", "images"), ("digits", "digits_folder")],
)
def test_its_name_is_one_for_files(folder: str, name: str) -> None:
    assert safe_name(folder) == name


def test_a_training_folder_that_is_split_has_the_name_of_its_data_set(here: Path) -> None:
    """As the line about train/ without val/ says."""
    make_folder(here / "birds" / "train", 4, 4)
    data = data_of(plan("birds/train"))
    assert (data.name, data.label, data.expected_val) == ("birds", "birds", 2)


def test_what_is_given_is_held_against_the_folder(here: Path) -> None:
    """Also where nothing that a table or a file is named by is left open."""
    make_folder(here / "birds" / "train", 4, 4)
    make_folder(here / "birds" / "val", 2, 2)
    given = ("data.name=mine", "data.num_classes=2", "data.val_folder=val")
    assert data_of(plan("birds", *given)).listing == data_of(plan("birds")).listing
    with pytest.raises(UserError, match="data.name=imagenet: a built-in data set's"):
        plan("birds", "data.name=imagenet", *given[1:])


def test_runs_of_one_sweep_validate_in_one_way(here: Path) -> None:
    """`birds` and `birds/train` have one name: a table that shows both would compare different validation images."""
    make_folder(here / "birds" / "train", 4, 4)
    make_folder(here / "birds" / "val", 2, 2)
    plan("birds", "optimizer=sgdm").write()
    with pytest.raises(UserError, match="validate on other images; .* data.name=birds_split$"):
        plan("birds/train", "optimizer=adam")
    plan("birds/train", "optimizer=adam", "data.name=birds_split").write()
    with pytest.raises(UserError, match="data.name=birds_split_folders$"):
        plan("birds", "optimizer=adam", "data.name=birds_split")


def test_a_name_with_spaces(here: Path) -> None:
    make_folder(here / "My flowers", 4, 4)
    data = data_of(make_plan(["data=folder", f"data.root='{here}/My flowers'"]))
    assert (data.name, data.label) == ("My_flowers", "My flowers")


def test_two_folders_of_one_name_share_nothing_in_silence(here: Path) -> None:
    for place in ("a", "b"):
        make_folder(here / place / "birds", 4, 4, first=10 if place == "b" else 0)
    first = plan("a/birds")
    first.write()
    with pytest.raises(UserError) as e:
        plan("b/birds")
    assert "planned on other images" in str(e.value) and "give another data.name" in str(e.value)
    with pytest.raises(UserError, match="planned on other images"):  # nor as other runs of one sweep
        plan("b/birds", "optimizer=adam", "seeds=[7]")
    plan("b/birds", "data.split_seed=2")  # another split of the folder is another list of images
    other = plan("b/birds", "data.name=birds_b")
    assert other.folder.name == "table2-birds_b"
    assert len({Path(data_of(p).beton_dir) for p in (first, other)}) == 2
    # a copy elsewhere is the same
    shutil.copytree("a/birds", "c/birds")
    again = plan("c/birds")
    assert config_hash(again.runs[0].config) == config_hash(first.runs[0].config) and not again.runs[0].new


@pytest.mark.parametrize(
    ("made", "given", "said"),
    [
        ({}, (), "data.root=.*/birds: no such folder; name the folder"),
        ({"x/deep": (1, 1)}, (), "a folder inside a class folder"),
        ({"": (3,)}, (), "holds a single class, class0"),
        ({"": (3, 1)}, (), "one image in class1"),
        ({"train": (3, 3)}, (), "has train/ and none of val/, valid/, validation/, test/; add one, or .*/birds/train"),
        ({"": (3,), "train": ()}, (), "its train/ holds no class folders; .* rename that folder"),
        ({"train": (3, 3), "val": (3,)}, (), "1 classes are in one of train and val only, the first is class1"),
        ({"train": (3, 3), "val": (1, 1)}, ("data.val_share=0.1",), "has train/ and val/ already; leave it out"),
        ({"train": (3, 3), "val": (1, 1)}, ("data.split_seed=1",), "data.split_seed=1: .* leave it out"),
        ({"": (3, 3)}, ("data.num_classes=9",), "data.num_classes=9: .* holds 2 classes; leave it out"),
        ({"": (3, 3)}, ("data.val_share=1.5",), "data.val_share=1.5: needs a number above 0, below 1"),
        ({"": (3, 3)}, ("data.val_folder=test",), "birds/train: no such folder"),
    ],
)
def test_what_is_refused(here: Path, made: dict[str, tuple[int, ...]], given: tuple[str, ...], said: str) -> None:
    for folder, counts in made.items():
        (here / "birds" / folder).mkdir(parents=True, exist_ok=True)
        make_folder(here / "birds" / folder, *counts)
    with pytest.raises(UserError, match=said) as e:
        plan("birds", *given)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("backend", "flat"), [("ffcv", False), ("folder", True)])
def test_prepared_and_read(here: Path, backend: str, flat: bool) -> None:
    if flat:
        make_folder(here / "birds", 8, 6)
    else:
        make_folder(here / "birds" / "train", 6, 5)
        make_folder(here / "birds" / "test", 2, 1)
    size = ("data.train_crop=16", "data.eval_resize=16", "data.eval_crop=16", "data.workers=1")
    data = data_of(plan("birds", f"data.backend={backend}", "data.write.mode=raw", *size))
    assert not is_prepared(data)
    made = prepare(data, workers=1, progress=False)
    assert (made["train"]["num_images"], made["val"]["num_images"]) == (11, 3)
    assert made["val"].get("split_by") == ({"val_share": 0.2, "split_seed": 0} if flat else None)
    assert is_prepared(data) and sorted(p.name for p in here.iterdir()) == ["birds", "data"]
    loader = open_eval(data, batch_size=8, rank=0, world_size=1, device="cpu")
    (_, images, labels) = next(iter(loader))
    loader.close()
    assert labels.tolist() == [0, 0, 1] and images.shape == (3, 3, 16, 16)
    assert np.unique(images[:, 0].numpy()).tolist() == [0, 40]  # the red of each class
    # Images that came later are seen wherever they would be trained on in silence.
    make_folder(here / "birds" / ("" if flat else "train"), 1, 1, first=90)
    with pytest.raises(UserError, match=r"holds other images .* than planned \(11 \+ 3\); put the old ones back"):
        prepare(data, workers=1, progress=False)
    later = data_of(plan("birds", f"data.backend={backend}", "data.write.mode=raw", *size))
    assert not is_prepared(later) and is_prepared(data)
    with pytest.raises(UserError, match="made of other images than data.root"):
        check_prepared(later)
    prepare(later, workers=1, progress=False)
    assert is_prepared(later) and not is_prepared(data)


def test_an_image_that_is_left_out_is_still_of_the_folder(here: Path) -> None:
    make_folder(here / "birds", 8, 6)
    (here / "birds" / "class0" / "broken.png").write_bytes(b"no image")
    data = dataclasses.replace(data_of(plan("birds")), backend="folder")
    made = prepare(data, workers=1, skip_bad=True, progress=False)
    assert sum(len(p.get("skipped", ())) for p in made.values()) == 1 and is_prepared(data)


def test_plan_opens_no_image_and_loads_no_torch(here: Path) -> None:
    for name in ("a", "b"):
        (here / "birds" / name).mkdir(parents=True)
        for i in range(3):
            (here / "birds" / name / f"{i}.jpg").touch()  # no image at all
    program = (
        "import sys; from adarem.plan.plan import make_plan; make_plan(['data=folder', 'data.root=birds']); "
        "assert not {'torch', 'torchvision', 'PIL', 'cv2'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
