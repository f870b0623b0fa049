import numpy as np
import pytest

from adarem.report import compare
from adarem.report.load import read_run
from adarem.run.errors import UserError
from tests.support.sweeps import HASHES, finish, make_config, write_grid


@pytest.fixture
def folder(dirs):
    return write_grid(dirs[0])


def bits(pattern):
    return np.array([c == "1" for c in pattern])


def test_two_runs_side_by_side(folder):
    a = finish(folder, make_config("resnet18", "sgdm"), 77.78, correct=bits("111111010"))
    b = finish(folder, make_config("resnet18", "adarem"), 22.22, correct=bits("000000110"))
    text = compare(a.path, b.path)
    assert compare(a.path, b.path) == text  # the second call finds the function still there
    lines = [line.split() for line in text.splitlines()]
    assert ["top1", "77.78", "22.22"] in lines
    assert "  optimizer.momentum: 0.9 against absent" in text.splitlines()
    # 6 right in a only, 1 in b only: p = 2 · (7 + 1) / 128
    assert "Top-1: a − b = +55.56 points" in text
    assert "only a right 6, only b right 1; McNemar's exact p = 0.12" in text
    assert "says nothing of what another seed would give" in text


def test_other_data_is_not_compared(folder):
    a = finish(folder, make_config("resnet18", "sgdm"), 75.0, correct=bits("1110"))
    b = finish(folder, make_config("resnet18", "adarem"), 50.0, correct=bits("1100"), hashes=HASHES | {"val": "e" * 64})
    assert "not evaluated on the same validation data" in compare(a.path, b.path)


def test_a_run_without_its_images_says_so(folder):
    a = finish(folder, make_config("resnet18", "sgdm"), 75.0, correct=bits("1110"))
    b = finish(folder, make_config("resnet18", "adarem"), 70.0)
    assert "table2/resnet18-adarem-s0 kept no correct.npz" in compare(a.path, b.path)


def test_no_run_there_is_one_line(folder):
    a = finish(folder, make_config("resnet18", "sgdm"), 70.0)
    with pytest.raises(UserError, match="nothing: holds no config.yaml"):
        compare(a.path, folder / "nothing")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("cut", "correct.npz: damaged"),
        ("other images", "correct.npz is of 1,000 images, result.json of 2,000"),
        ("other figure", "correct.npz has top1 10.00, result.json 75.00"),
        ("top-1 alone", "has no top5"),
        ("fewer bits than it says", "correct.npz: damaged"),
    ],
)
def test_images_that_do_not_fit_the_result_are_named_and_not_compared(folder, damage, words):
    right = np.arange(2000) < 1500
    a = finish(folder, make_config("resnet18", "sgdm"), 75.0, correct=right, epochs=False)
    b = finish(folder, make_config("resnet18", "adarem"), 75.0, correct=right, epochs=False)
    assert "McNemar" in compare(a.path, b.path)
    assert (read_run(b.path).correct()["top1"] == right).all()
    tenth = np.arange(2000) % 10 == 0
    if damage == "cut":
        b.correct_file.write_bytes(b.correct_file.read_bytes()[:30])
    elif damage == "other images":
        b.write_correct({"top1": tenth[:1000], "top5": tenth[:1000]})
    elif damage == "other figure":
        b.write_correct({"top1": tenth, "top5": right})
    elif damage == "top-1 alone":
        b.write_correct({"top1": right})
    else:
        np.savez(b.correct_file, n=2000, top1=np.packbits(right)[:100], top5=np.packbits(right))
    text = compare(a.path, b.path)
    assert words in text
    assert "Not compared image by image: table2/resnet18-adarem-s0 kept no" in text and "McNemar" not in text
    read = read_run(b.path)
    assert read.correct() is None and any(words in p for p in read.problems)


def test_a_rehearsal_by_the_data_it_saw_is_told(folder):
    a = finish(folder, make_config("resnet18", "sgdm"), 75.0, correct=bits("1110"), epochs=False)
    b = finish(folder, make_config("resnet18", "adarem"), 70.0, epochs=False)
    text = compare(a.path, b.path)
    assert ["rehearsal", "yes", "no"] in [line.split() for line in text.splitlines()]
    assert "table2/resnet18-sgdm-s0: rehearsal: ImageNet with 4 of 50,000 validation images: shows that" in text
