"""Extents, storages and pieces of memory."""

import random
from array import array

import pytest
import torch
from torch import Tensor

from adarem.optim.kernels import cpu
from adarem.optim.memory import Pieces, addresses, extent, fits, sizes, storage_sizes


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (torch.ones(()), 1),
        (torch.ones(3, 4), 12),
        (torch.ones(3, 4).t(), 12),
        (torch.ones(3, 4)[:, ::2], 11),
        (torch.ones(1).expand(5), -1),
        (torch.ones(9).as_strided((3, 3), (2, 1)), -7),
        (torch.ones(9).as_strided((2, 1), (3, 7)), 4),
    ],
    ids=str,
)
def test_extent_is_from_the_first_to_the_last_element(x: Tensor, expected: int) -> None:
    assert extent(x.size(), x.stride()) == expected
    assert list(sizes([abs(expected)], [x.double()])) == [8 * abs(expected)]


def test_storages_may_be_shorter_than_what_lies_in_them() -> None:
    x = torch.ones(10)[2:]
    assert fits(x, 8) and not fits(x, 9)
    x.untyped_storage().resize_(36)
    assert not fits(x, 8)
    assert list(storage_sizes([x, torch.ones(2)])) == [36, 8]


def test_addresses_are_those_of_the_first_elements() -> None:
    x = torch.ones(10)
    assert list(addresses([x, x[2:]])) == [x.data_ptr(), x.data_ptr() + 8]


def test_pieces_that_overlap_or_are_nowhere_are_none() -> None:
    assert Pieces.of([8, 0x20, 16], [8, 4, 16]) == Pieces(array("Q", [8, 16, 32]), array("Q", [16, 32, 36]))
    assert Pieces.of([8, 32, 16], [8, 4, 17]) is None
    assert Pieces.of([8, 8], [4, 4]) is None
    assert Pieces.of([0, 8], [4, 4]) is None
    assert Pieces.of([], []) is not None


def test_the_kernel_s_library_compares_pieces_as_they_do() -> None:
    draw = random.Random(0)
    outcomes = set()
    for _ in range(500):
        starts = draw.sample(range(10, 400, 10), draw.randint(0, 12))
        pieces = Pieces.of(starts, [draw.randint(1, 10) for _ in starts])
        assert pieces is not None
        others = array("Q", [draw.randint(0 if draw.random() < 0.1 else 1, 420) for _ in range(draw.randint(0, 4))])
        nbytes = array("Q", [draw.randint(1, 9) for _ in others])
        expected = all(
            a > 0 and all(a + n <= s or a >= e for s, e in zip(pieces.starts, pieces.ends, strict=True))
            for a, n in zip(others, nbytes, strict=True)
        )
        assert pieces.are_clear_of(others, nbytes) == expected
        assert cpu.are_clear(pieces, others, nbytes) == expected
        outcomes.add(expected)
    assert outcomes == {True, False}
