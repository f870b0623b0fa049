import numpy as np
import pytest
from report_factory import HASHES, finish, make_config, write_grid

from adarem.errors import UserError
from adarem.report import compare


@pytest.fixture
def folder(dirs):
    return write_grid(dirs[0])


def bits(pattern):
    return np.array([c == "1" for c in pattern])


def test_two_runs_side_by_side(folder):
    a = finish(folder, make_config("resnet18", "sgdm"), 66.67, correct=bits("111111010"))
    b = finish(folder, make_config("resnet18", "adarem"), 22.22, correct=bits("000000110"))
    text = compare(a.path, b.path)
    assert compare(a.path, b.path) == text  # the second call finds the function still there
    lines = [line.split() for line in text.splitlines()]
    assert ["top1", "66.67", "22.22"] in lines
    assert "  optimizer.momentum: 0.9 against absent" in text.splitlines()
    # 6 right in a only, 1 in b only: p = 2 · (7 + 1) / 128
    assert "Top-1: a − b = +55.56 points" in text
    assert "only a right 6, only b right 1; McNemar's exact p = 0.12" in text
    assert "says nothing of what another seed would give" in text


def test_other_data_is_not_compared(folder):
    a = finish(folder, make_config("resnet18", "sgdm"), 70.0, correct=bits("1110"))
    b = finish(folder, make_config("resnet18", "adarem"), 70.0, correct=bits("1100"), hashes=HASHES | {"val": "e" * 64})
    assert "not evaluated on the same validation data" in compare(a.path, b.path)


def test_a_run_without_its_images_says_so(folder):
    a = finish(folder, make_config("resnet18", "sgdm"), 70.0, correct=bits("1110"))
    b = finish(folder, make_config("resnet18", "adarem"), 70.0)
    assert "table2/resnet18-adarem-s0 kept no correct.npz" in compare(a.path, b.path)


def test_no_run_there_is_one_line(folder):
    a = finish(folder, make_config("resnet18", "sgdm"), 70.0)
    with pytest.raises(UserError, match="nothing: holds no config.yaml"):
        compare(a.path, folder / "nothing")


def test_damaged_images_are_one_line(folder):
    a = finish(folder, make_config("resnet18", "sgdm"), 70.0, correct=bits("1110"))
    b = finish(folder, make_config("resnet18", "adarem"), 70.0, correct=bits("1110"))
    b.correct_file.write_bytes(b.correct_file.read_bytes()[:30])
    with pytest.raises(UserError, match="correct.npz: damaged"):
        compare(a.path, b.path)
