"""The embedded corpus: the prose of the Python language reference, which every CPython carries in pydoc_data.topics.

Real English for rehearsals. Its text differs a little between versions of Python, which the fingerprint tells.
"""

import collections
import re
from collections.abc import Iterator

from adarem.data.text.corpus import EOS, SPLITS, read_corpus, text_path
from adarem.run.config import TextConfig
from adarem.run.errors import UserError
from adarem.run.files import write_atomically

UNK = "<unk>"
# Of every fifty paragraphs the first forty are for training, five for validation and five for the test.
_BLOCK, _TRAIN, _VAL = 50, 40, 45
_SHORTEST = 8  # words; shorter paragraphs are headings and signatures
_CODE = re.compile(r"^\s*(>>>|\.\.\.|\||\+[-=])|::=|^ {6,}\S", re.MULTILINE)
_UNDERLINE = re.compile(r"^[=*~\-^\"]{4,}$", re.MULTILINE)
_WORD = re.compile(r"[a-z]+(?:_[a-z]+)*(?:'[a-z]+)?|\d+")


def _paragraphs() -> Iterator[list[list[str]]]:
    """Each paragraph of prose once, as sentences of lower-case words; numbers are N. Code, tables, headings are out."""
    from pydoc_data.topics import topics

    seen = set()
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
            if len(key) >= _SHORTEST and key not in seen:  # topics repeat whole sections of each other
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


def prepare_text(data: TextConfig) -> list[str]:
    """Writes an embedded corpus that is not there yet, checks the files, and says of each split what it holds.

    Raises:
        UserError: see read_corpus; or the folder cannot be written.
    """
    paths = {split: text_path(data, split) for split in SPLITS}
    if data.embedded and not all(p.exists() for p in paths.values()):
        if data.name != "pydoc":
            raise UserError(f"data.name={data.name}: the embedded text is pydoc; set data.embedded=false")
        try:
            for split, text in make_texts(data.vocabulary).items():
                write_atomically(paths[split], text)
        except OSError as e:
            raise UserError(f"data.root={data.root}: cannot be written to ({e.strerror}); choose another") from None
    return [
        f"{split}: {found['num_tokens']:,} tokens in {found['num_lines']:,} sentences, vocabulary "
        f"{found['vocabulary']:,}, content {found['content_hash'][:16]}"
        for split, found in read_corpus(data).fingerprint.items()
    ]
