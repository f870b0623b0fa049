"""The embedded corpus is prose, split once and for all."""

from adarem.data.text.pydoc import UNK, make_texts


def test_corpus_has_the_size_and_the_vocabulary_asked_for() -> None:
    words = {split: text.split() for split, text in make_texts(500).items()}
    assert 25_000 < len(words["train"]) < 100_000
    assert len({*words["train"]}) == 499 and UNK in words["train"]  # and the end of a sentence
    for split in ("val", "test"):
        assert 0.05 < len(words[split]) / len(words["train"]) < 0.25
        assert {*words[split]} <= {*words["train"]}


def test_a_paragraph_that_two_topics_hold_is_in_one_split_only() -> None:
    texts = make_texts(10**6)
    long = {s: {line for line in t.splitlines() if len(line.split()) > 20} for s, t in texts.items()}
    assert len(long["train"]) > 100
    for split in ("val", "test"):
        assert len(long[split] & long["train"]) <= 0.02 * len(long[split])
