"""Which training images are held out: stratified, each once, and the same wherever it is computed."""

import numpy as np
import pytest

from adarem.data.images.holdout import held_out, record, rest
from adarem.run.errors import UserError
from tests.support.photos import data_config

UNEVEN = np.repeat(np.arange(5), [50, 30, 10, 7, 3])
SHUFFLED = np.random.default_rng(0).permutation(UNEVEN)


@pytest.mark.parametrize("labels", [UNEVEN, SHUFFLED, np.zeros(9, int), np.arange(400) % 100])
@pytest.mark.parametrize("holdout", [0.04, 0.2, 0.5, 2, 4])
def test_every_class_gives_its_share(labels: np.ndarray, holdout: int | float) -> None:
    if isinstance(holdout, float) and holdout * len(labels) < 0.5:
        return
    held = held_out(labels, holdout, seed=3)
    k = holdout if isinstance(holdout, int) else round(holdout * len(labels))
    assert len(held) == k == len({*held.tolist()}) and held.tolist() == sorted(held.tolist())
    for c in np.unique(labels):
        of_class, share = int((labels[held] == c).sum()), k * (labels == c).mean()
        assert abs(of_class - share) < 1
    others = rest(held, len(labels))
    assert sorted([*held.tolist(), *others.tolist()]) == list(range(len(labels)))
    assert {*np.unique(labels[others])} == {*np.unique(labels)}


def test_it_is_a_function_of_labels_number_and_seed_alone() -> None:
    held = held_out(SHUFFLED, 10, 0)
    assert held.tolist() == held_out(SHUFFLED.astype(np.int16), 0.1, 0).tolist()
    assert held.tolist() != held_out(SHUFFLED, 10, 1).tolist()
    assert held_out(UNEVEN, 10, 0).tolist() == [
        17,
        24,
        27,
        33,
        44,
        50,
        63,
        79,
        87,
        90,
    ]  # on every machine, with every version


def test_rounding_favours_no_class() -> None:
    labels = np.arange(1000) % 100
    held = [np.unique(labels[held_out(labels, 40, seed)]).tolist() for seed in range(20)]
    assert all(len(classes) == 40 for classes in held)
    assert len({c for classes in held for c in classes}) == 100


@pytest.mark.parametrize(
    ("holdout", "words"),
    [
        (0.001, "data.holdout=0.001: is less than one of 100 training images; raise it"),
        (96, "data.holdout=96: leaves a class of the 100 training images without one to train on; hold out 95 at most"),
        (0.99, "hold out 95 at most"),
        (100_000, "hold out 95 at most"),
    ],
)
def test_impossible_parts_are_refused(holdout: int | float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        held_out(UNEVEN, holdout, 0)
    assert len(held_out(UNEVEN, 95, 0)) == 95


def test_the_record_says_which_images_of_what(tmp_path) -> None:
    data = data_config(tmp_path, holdout=10)
    held = held_out(SHUFFLED, 10, 0)
    found = record(data, held, "abc")
    assert (found["split"], found["num_images"], found["holdout"], found["holdout_seed"]) == ("holdout", 10, 10, 0)
    others = [record(data, held_out(SHUFFLED, 10, 1), "abc"), record(data, held, "abd")]
    assert len({r["content_hash"] for r in (found, *others)}) == 3
