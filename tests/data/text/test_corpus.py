"""Text: what is counted, what is refused and with which line, and how an epoch is cut into lengths."""

from pathlib import Path

import numpy as np
import pytest

from adarem.data.text.corpus import bptt_lengths, read_corpus, text_path
from adarem.data.text.pydoc import make_texts, prepare_text
from adarem.run.config import TextConfig
from adarem.run.errors import UserError

TRAIN = " the cat sat \n the dog sat on <unk> \n"  # as the Penn Treebank's files: a space at either end


def config(root: Path, **changed) -> TextConfig:
    of = {"name": "ptb", "label": "Penn Treebank", "embedded": False, "vocabulary": 7}
    of |= {"expected_train": None, "expected_val": None, "expected_test": None}
    return TextConfig(kind="text", root=str(root), **(of | changed))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, text in (("train", TRAIN), ("val", "the cat sat\n"), ("test", "the dog sat on the cat")):
        text_path(config(tmp_path), split).write_text(text)
    return tmp_path


def test_tokens_are_words_and_an_end_for_each_line(root: Path) -> None:
    corpus = read_corpus(config(root, expected_train=10, expected_val=4, expected_test=7))
    assert corpus.words == ("the", "cat", "sat", "<eos>", "dog", "on", "<unk>")
    assert corpus.tokens["train"].tolist() == [0, 1, 2, 3, 0, 4, 2, 5, 6, 3]
    assert corpus.tokens["test"].tolist() == [0, 4, 2, 5, 0, 1, 3]  # the last line needs no newline
    assert {s: r["num_tokens"] for s, r in corpus.fingerprint.items()} == {"train": 10, "val": 4, "test": 7}
    assert corpus.fingerprint["val"]["vocabulary"] == 7


@pytest.mark.parametrize(
    ("name", "content", "changed", "message"),
    [
        ("ptb.valid.txt", None, {}, r"ptb.valid.txt: cannot be read \(No such file or directory\); data.root needs "),
        ("ptb.train.txt", None, {"embedded": True}, r"run `adarem prepare grid=table3 data=ptb`"),
        ("ptb.train.txt", b"a b\nc \xff d\n", {}, r"ptb.train.txt, line 2: byte 0xff is not UTF-8"),
        ("ptb.train.txt", b"\n\n", {}, r"ptb.train.txt: holds no words"),
        ("ptb.train.txt", b"", {}, r"ptb.train.txt: holds no words"),
        ("ptb.train.txt", b"the cat\n\n\non\n", {}, r"2 of 4 lines are empty, the first is line 2"),
        ("ptb.train.txt", b"a b c d e f g\n", {}, r"8 distinct words with end-of-sentence, data.vocabulary=7; write"),
        ("ptb.test.txt", b"the cat\nthe bird\n", {}, r"ptb.test.txt, line 2: 'bird' does not occur in ptb.train.txt"),
        (None, None, {"expected_train": 929589}, r"10 tokens with end-of-sentence, the Penn Treebank has 929,589"),
        (None, None, {"expected_val": 5}, r"ptb.valid.txt: 4 tokens .* data.expected_val=null"),
        (None, None, {"expected_test": 5}, r"ptb.test.txt: 7 tokens"),
        (None, None, {"expected_train": 10, "vocabulary": 9}, r"7 distinct words .*data.vocabulary=9; lower it"),
    ],
)
def test_bad_input_gets_one_line(root: Path, name, content, changed, message: str) -> None:
    if name is not None:
        (root / name).unlink()
        if content is not None:
            (root / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_corpus(config(root, **changed))
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)


def test_a_rare_empty_line_is_no_sentence(root: Path) -> None:
    lines = ["the cat sat on the dog <unk>"] * 200
    (root / "ptb.train.txt").write_text("\n".join([*lines[:50], "", *lines[50:]]) + "\n")
    assert read_corpus(config(root)).fingerprint["train"]["num_tokens"] == 200 * 8


def test_embedded_corpus_is_prose_split_for_good(tmp_path: Path) -> None:
    data = config(tmp_path, name="pydoc", embedded=True, vocabulary=500)
    told = prepare_text(data)
    prints = read_corpus(data).fingerprint
    assert told[0].startswith(f"train: {prints['train']['num_tokens']:,} tokens in ")
    assert 25_000 < prints["train"]["num_tokens"] < 100_000
    assert prints["train"]["vocabulary"] == 500
    for split in ("val", "test"):
        assert 0.05 < prints[split]["num_tokens"] / prints["train"]["num_tokens"] < 0.25
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert prepare_text(data) == told and {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    # a paragraph that stands in two topics is in one split only
    texts = make_texts(10**6)
    long = {s: {line for line in t.splitlines() if len(line.split()) > 20} for s, t in texts.items()}
    assert len(long["train"]) > 100
    for split in ("val", "test"):
        assert len(long[split] & long["train"]) <= 0.02 * len(long[split])


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
