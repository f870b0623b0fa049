"""Both splits of a source: two folders, or one that is split class by class, the same on every machine."""

from pathlib import Path

import pytest

from adarem.data.images.open_source import folder_name, listing_of, open_source, source_is_there, split_classes
from adarem.data.images.source import scan
from adarem.run.errors import UserError
from tests.support.own_images import make_folder
from tests.support.photos import data_config


def test_a_flat_folder_is_split_class_by_class(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "flat", 20, 10, 2)
    data = data_config(root, val_share=0.2, split_seed=3, num_classes=3)
    assert folder_name(data, "train") == folder_name(data, "val") == "" and source_is_there(data)
    parts = open_source(data)
    assert [parts["val"].labels.tolist().count(c) for c in range(3)] == [4, 2, 1]
    assert [parts["train"].labels.tolist().count(c) for c in range(3)] == [16, 8, 1]
    everything = scan(root, ".")
    assert sorted(parts["train"].files + parts["val"].files) == everything.files
    assert parts["train"].images[0].read() == (root / parts["train"].files[0]).read_bytes()
    # of the names alone: the same elsewhere, another with another seed
    copy = make_folder(tmp_path / "copy" / "of", 20, 10, 2)
    assert listing_of(open_source(data_config(copy, val_share=0.2, split_seed=3))) == listing_of(parts)
    assert split_classes(everything, 0.2, 4)["val"].files != parts["val"].files


def test_an_image_more_moves_few_others(tmp_path: Path) -> None:
    root = make_folder(tmp_path, 100)
    before = set(split_classes(scan(root, "."), 0.2, 0)["val"].files)
    make_folder(root, 1, first=500)
    assert len(before ^ set(split_classes(scan(root, "."), 0.2, 0)["val"].files)) <= 2


def test_the_split_does_not_change_with_the_version(tmp_path: Path) -> None:
    """Runs are compared image by image years apart."""
    val = split_classes(scan(make_folder(tmp_path, 5, 5), "."), 0.4, 0)["val"].files
    assert val == ["class0/img001.png", "class0/img004.png", "class1/img001.png", "class1/img003.png"]


def test_one_image_cannot_be_on_both_sides(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"one image in class1, and training and validation need one each.*; add images"
    ):
        split_classes(scan(make_folder(tmp_path, 4, 1), "."), 0.2, 0)


def test_validation_may_have_another_name(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", 3, 3)
    make_folder(tmp_path / "valid", 1, 2)
    data = data_config(tmp_path, val_folder="valid", num_classes=2)
    assert {split: len(source) for split, source in open_source(data).items()} == {"train": 6, "val": 3}
    assert not source_is_there(data_config(tmp_path / "nowhere"))
