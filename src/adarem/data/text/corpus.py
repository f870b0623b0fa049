"""Text for a language model: three files of words, checked, as arrays of word numbers. No torch here.

A file holds a sentence a line, words between spaces; the end of a line counts as a word. The vocabulary is that of the
training file, numbered in order of first occurrence.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from adarem.run.config import TextConfig
from adarem.run.errors import UserError
from adarem.run.files import decoded

EOS = "<eos>"
SPLITS = {"train": "train", "val": "valid", "test": "test"}  # split to its word in the file's name
_EMPTY_SHARE = 0.01  # of a file's lines; more are a sign of another format
# Characters without width, with which two words look alike, or none at all like one: left out. Joiners are letters to
# some scripts, within a word.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\u034f\u2800\u3164\uffa0\ufeff]"
)
_AT_EDGE = re.compile(r"(?:(?<=\s)|^)[\u200c\u200d]+|[\u200c\u200d]+(?=\s|$)")


class TextFingerprint(TypedDict):
    """What a run records of one split."""

    split: str
    num_tokens: int  # end-of-sentence included
    num_lines: int
    content_hash: str  # SHA-256 of the file
    vocabulary: int  # distinct words of the training file
    invisible: NotRequired[int]  # characters without width that were left out, where there are any


@dataclass(frozen=True)
class Corpus:
    """The three files of a text, read and checked."""

    words: tuple[str, ...]  # the vocabulary; a word's place is its number
    tokens: dict[str, NDArray[np.int64]]  # train, val, test: [tokens], in the order of the text
    fingerprint: dict[str, TextFingerprint]  # of train, val, test


def text_path(data: TextConfig, split: str) -> Path:
    """The file of a split: train, val or test."""
    return Path(data.root) / f"{data.name}.{SPLITS[split]}.txt"


def read_corpus(data: TextConfig) -> Corpus:
    """Reads and checks the three files; about a second for the Penn Treebank.

    Raises:
        UserError: a file is missing, is not UTF-8, holds no words or too many empty lines; tokens or vocabulary are not
            those that the config expects; a word of another split does not occur in training.
    """
    number: dict[str, int] = {}
    tokens: dict[str, NDArray[np.int64]] = {}
    prints: dict[str, TextFingerprint] = {}
    for split in SPLITS:
        path = text_path(data, split)
        raw = _read(data, path)
        text, invisible = visible(decoded(path, raw))
        lines = _lines(path, text)
        found: list[int] = []
        for at, line in lines:
            for word in (*line.split(), EOS):
                if split == "train":
                    number.setdefault(word, len(number))
                elif word not in number:
                    raise UserError(
                        f"{path}, line {at}: {word!r} does not occur in {text_path(data, 'train').name}; "
                        "write rare words as <unk> in all three files"
                    )
                found.append(number[word])
        _check_count(data, split, path, len(found))
        tokens[split] = np.asarray(found, dtype=np.int64)
        prints[split] = {
            "split": split,
            "num_tokens": len(found),
            "num_lines": len(lines),
            "content_hash": hashlib.sha256(raw).hexdigest(),
            "vocabulary": len(number),
        }
        if invisible:
            prints[split]["invisible"] = invisible
        if split == "train":
            _check_vocabulary(data, path, len(number))
    return Corpus(tuple(number), tokens, prints)


def _read(data: TextConfig, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        remedy = (
            f"run `adarem prepare grid=table3 data={data.name}`"
            if data.embedded
            else f"data.root needs {', '.join(text_path(data, s).name for s in SPLITS)}"
        )
        raise UserError(f"{path}: cannot be read ({e.strerror}); {remedy}") from None


class _Line(NamedTuple):
    number: int  # from 1
    text: str


def visible(text: str) -> tuple[str, int]:
    """The text without characters that have no width, and how many those were."""
    if text.isascii():
        return text, 0
    text, within = _INVISIBLE.subn("", text)
    kept = _AT_EDGE.sub("", text)
    return kept, within + len(text) - len(kept)


def _lines(path: Path, text: str) -> list[_Line]:
    """The lines that hold a word."""
    every = text.removesuffix("\n").split("\n")
    lines = [_Line(at, line) for at, line in enumerate(every, 1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: holds no words; give a file with a sentence a line")
    empty = len(every) - len(lines)
    if empty > _EMPTY_SHARE * len(every):
        first = next(at for at, line in enumerate(every, 1) if not line.strip())
        raise UserError(
            f"{path}: {empty:,} of {len(every):,} lines are empty, the first is line {first}; remove empty lines, "
            "one sentence a line"
        )
    return lines


def _check_count(data: TextConfig, split: str, path: Path, found: int) -> None:
    expected = {"train": data.expected_train, "val": data.expected_val, "test": data.expected_test}[split]
    if expected is not None and found != expected:
        raise UserError(
            f"{path}: {found:,} tokens with end-of-sentence, the {data.label} has {expected:,}; take the standard "
            f"preprocessed files, or set data.expected_{split}=null for a rehearsal on other text"
        )


def _check_vocabulary(data: TextConfig, path: Path, found: int) -> None:
    exact = data.expected_train is not None
    if found > data.vocabulary or (exact and found != data.vocabulary):
        more = "write rarer words as <unk>, or raise data.vocabulary" if found > data.vocabulary else "lower it"
        raise UserError(
            f"{path}: {found:,} distinct words with end-of-sentence, data.vocabulary={data.vocabulary}; {more}"
        )
