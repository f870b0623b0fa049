"""Text: what is counted, and what is refused with which line."""

from pathlib import Path

import pytest

from adarem.data.text.corpus import read_corpus, text_path
from adarem.run.errors import UserError
from tests.support.texts import text_config

TRAIN = " the cat sat \n the dog sat on <unk> \n"  # as the Penn Treebank's files: a space at either end


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, text in (("train", TRAIN), ("val", "the cat sat\n"), ("test", "the dog sat on the cat")):
        text_path(text_config(tmp_path), split).write_text(text)
    return tmp_path


def test_tokens_are_words_and_an_end_for_each_line(root: Path) -> None:
    corpus = read_corpus(text_config(root, expected_train=10, expected_val=4, expected_test=7))
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
        read_corpus(text_config(root, **changed))
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)


def test_a_rare_empty_line_is_no_sentence(root: Path) -> None:
    lines = ["the cat sat on the dog <unk>"] * 200
    (root / "ptb.train.txt").write_text("\n".join([*lines[:50], "", *lines[50:]]) + "\n")
    assert read_corpus(text_config(root)).fingerprint["train"]["num_tokens"] == 200 * 8


def test_characters_without_width_are_no_words(root: Path) -> None:
    """They come with pasted text; a word with one looks like the same word without."""
    before = read_corpus(text_config(root))
    (root / "ptb.train.txt").write_text(
        "\ufeff\u00a0the\u200b cat \u200b sat\u2060\u00a0\n\u200e\u200f the dog\u200d s\u00adat on <unk>\n"
    )
    corpus = read_corpus(text_config(root))
    assert corpus.words == before.words and corpus.tokens["train"].tolist() == before.tokens["train"].tolist()
    assert corpus.fingerprint["train"]["invisible"] == 7 and "invisible" not in corpus.fingerprint["val"]
    (root / "ptb.train.txt").write_text("the cat sat\nthe dog sat on <unk>\nمی\u200cخواهم\n")
    assert read_corpus(text_config(root, vocabulary=8)).words[-1] == "می\u200cخواهم"  # a letter of that word
