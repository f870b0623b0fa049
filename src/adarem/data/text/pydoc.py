"""The embedded corpus: the prose of the Python language reference, which every CPython carries in pydoc_data.topics.

Real English for rehearsals. Its text differs a little between versions of Python, which the fingerprint shows.
"""

import collections
import re
from collections.abc import Iterator

from adarem.data.text.corpus import EOS, SPLITS

UNK = "<unk>"
# Of every fifty paragraphs the first forty are for training, five for validation and five for the test.
_BLOCK, _TRAIN, _VAL = 50, 40, 45
_SHORTEST = 8  # words; shorter paragraphs are headings and signatures
_CODE = re.compile(r"^\s*(>>>|\.\.\.|\||\+[-=])|::=|^ {6,}\S", re.MULTILINE)
_UNDERLINE = re.compile(r"^[=*~\-^\"]{4,}$", re.MULTILINE)
_WORD = re.compile(r"[a-z]+(?:_[a-z]+)*(?:'[a-z]+)?|\d+")


def _paragraphs() -> Iterator[list[list[str]]]:
    """Each paragraph of prose once, as sentences of lower-case words, numbers as N; no code, tables or headings."""
    from pydoc_data.topics import topics

    seen: set[tuple[str, ...]] = set()
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name].replace("’", "'")):
            if _CODE.search(paragraph) or _UNDERLINE.search(paragraph):
                continue
            sentences = [
                ["N" if w.isdigit() else w for w in _WORD.findall(sentence.lower())]
                for sentence in re.split(r"(?<=[.:;!?])\s+", paragraph.strip())
            ]
            sentences = [s for s in sentences if s]
            key = tuple(w for s in sentences for w in s)
            if len(key) >= _SHORTEST and key not in seen:  # topics repeat sections of each other
                seen.add(key)
                yield sentences


def make_texts(vocabulary: int) -> dict[str, str]:
    """The three files' text. All words but the most frequent of training, ties by alphabet, become <unk>."""
    parts: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    for i, sentences in enumerate(_paragraphs()):
        place = i % _BLOCK
        parts["train" if place < _TRAIN else "val" if place < _VAL else "test"] += sentences
    counts = collections.Counter(w for s in parts["train"] for w in s)
    ranked = sorted(counts, key=lambda w: (-counts[w], w))
    known = set(ranked[: vocabulary - len((EOS, UNK))])
    return {
        split: "".join(" ".join(w if w in known else UNK for w in s) + "\n" for s in sentences)
        for split, sentences in parts.items()
    }
