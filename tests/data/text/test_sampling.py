"""An epoch's lengths cover the text and depend on seed and epoch alone."""

import numpy as np
import pytest

from adarem.data.text.sampling import bptt_lengths, scored_windows, training_windows


def test_lengths_cover_the_text_and_depend_on_seed_and_epoch_alone() -> None:
    of = {"rows": 46_479, "bptt": 70, "half": 0.05, "deviation": 5.0, "least": 5}
    lengths = bptt_lengths(**of, seed=0, epoch=0)
    assert lengths.sum() == 46_479 and lengths.min() >= 5
    assert len(lengths) == round(46_479 / 68.25)
    assert np.array_equal(lengths, bptt_lengths(**of, seed=0, epoch=0))
    others = [bptt_lengths(**of, seed=s, epoch=e) for s, e in ((0, 1), (1, 0), (1, 1))]
    assert all(len(o) == len(lengths) and o.sum() == 46_479 for o in others)
    assert not any(np.array_equal(lengths, o) for o in others)
    # the distribution of Merity et al.: about one in twenty around 35, the rest around 70, deviation 5
    every = np.concatenate([bptt_lengths(**of, seed=0, epoch=e) for e in range(20)])
    assert np.mean(every < 52) == pytest.approx(0.05, abs=0.01)
    assert every[every > 52].mean() == pytest.approx(69.5, abs=0.7)  # int() takes half a step off
    assert every[every > 52].std() == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize("rows", [1, 4, 5, 6, 30, 36, 37, 100, 1001])
def test_any_text_can_be_cut(rows: int) -> None:
    for epoch in range(30):
        lengths = bptt_lengths(rows, bptt=10, half=0.5, deviation=8.0, least=5, seed=3, epoch=epoch)
        assert lengths.sum() == rows and (lengths.min() >= 5 or len(lengths) == 1)


def test_training_windows_do_not_overlap_and_depend_on_seed_and_epoch_alone() -> None:
    starts = training_windows(1003, context=10, seed=0, epoch=0)
    assert np.array_equal(starts, training_windows(1003, context=10, seed=0, epoch=0))
    assert len(starts) == 99 and len(set(starts % 10)) == 1 and not np.array_equal(starts, np.sort(starts))
    firsts = set()
    for epoch in range(200):
        starts = training_windows(1003, context=10, seed=1, epoch=epoch)
        assert len(set(starts)) == 99 and starts.min() >= 0 and starts.max() + 10 <= 1003
        firsts.add(int(starts.min()))
    assert firsts == set(range(10))  # so every token is predicted after contexts of every length


@pytest.mark.parametrize("context", [1, 2, 7, 8, 64])
@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 9, 63, 64, 65, 96, 97, 1000])
def test_each_token_of_an_evaluation_counts_once_after_half_a_window(context: int, tokens: int) -> None:
    windows = scored_windows(tokens, context=context)
    length = min(context, tokens)
    seen = np.zeros(tokens, dtype=int)
    for i, (start, scored_from) in enumerate(zip(*windows, strict=True)):
        assert 0 <= start <= scored_from < start + length <= tokens
        assert i == 0 or scored_from - start >= context - max(1, context // 2)
        seen[scored_from : start + length] += 1
    assert (seen == 1).all()
