"""Text for a language model: three files of words, checked, as arrays of word numbers. No torch here.

A file holds a sentence a line, words between spaces; the end of a line counts as a word. The vocabulary is that of the
training file, numbered in order of first occurrence.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adarem.run.config import TextConfig
from adarem.run.errors import UserError

EOS = "<eos>"
SPLITS = {"train": "train", "val": "valid", "test": "test"}  # split to its word in the file's name
_EMPTY_SHARE = 0.01  # of a file's lines; more are a sign of another format


@dataclass(frozen=True)
class Corpus:
    words: tuple[str, ...]  # the vocabulary; a word's place is its number
    tokens: dict[str, np.ndarray]  # train, val, test: int64 [tokens], in the order of the text
    fingerprint: dict[str, dict[str, Any]]  # split, num_tokens, num_lines, vocabulary, content_hash of each


def text_path(data: TextConfig, split: str) -> Path:
    return Path(data.root) / f"{data.name}.{SPLITS[split]}.txt"


def read_corpus(data: TextConfig) -> Corpus:
    """Reads and checks the three files; a second or so for the Penn Treebank.

    Raises:
        UserError: a file is missing, is no UTF-8, holds no words or too many empty lines; tokens or vocabulary are not
            those that the config expects; a word of another split does not occur in training.
    """
    number: dict[str, int] = {}
    tokens, prints = {}, {}
    for split in SPLITS:
        path = text_path(data, split)
        raw = _read(data, path)
        lines = _lines(path, raw)
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
        }
        if split == "train":
            _check_vocabulary(data, path, len(number))
    for record in prints.values():
        record["vocabulary"] = len(number)
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


def _lines(path: Path, raw: bytes) -> list[tuple[int, str]]:
    """(line number from 1, line) of the lines that hold a word."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise UserError(f"{path}, line {line}: byte 0x{raw[e.start]:02x} is not UTF-8; convert the file") from None
    every = text.removesuffix("\n").split("\n")
    lines = [(at, line) for at, line in enumerate(every, 1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: holds no words")
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


def bptt_lengths(
    rows: int, *, bptt: int, half: float, deviation: float, least: int, seed: int, epoch: int
) -> np.ndarray:
    """Lengths of an epoch's batches in time steps: a pure function of seed and epoch, with the sum ``rows``.

    Drawn as Merity et al. 2017 do (section 4.1): around ``bptt``, with probability ``half`` around half of it, with a
    normal deviation, at least ``least``. Theirs end where the text does; here the number of batches is the expected
    one, the same in every epoch, and what the draw is off by is spread over the batches, a time step each. Schedule,
    lambda and resume count steps, so that an epoch has to have a fixed number of them.
    """
    steps = max(1, round(rows / (bptt * (1.0 - 0.5 * half))))
    if rows < least * steps:
        return np.asarray([rows])
    draw = np.random.default_rng([seed, epoch])
    around = np.where(draw.random(steps) < half, bptt / 2.0, float(bptt))
    lengths = np.maximum(least, draw.normal(around, deviation).astype(np.int64))
    while off := rows - int(lengths.sum()):
        able = np.arange(steps) if off > 0 else np.flatnonzero(lengths > least)
        lengths[draw.permutation(able)[: abs(off)]] += np.sign(off)
    return lengths
