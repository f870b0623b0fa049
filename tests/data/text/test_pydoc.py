"""The embedded corpus: prose, split once and for all, written where it is missing."""

from pathlib import Path

from adarem.data.text.corpus import read_corpus
from adarem.data.text.prepare import prepare_text
from adarem.data.text.pydoc import make_texts
from tests.support.texts import text_config


def test_embedded_corpus_is_prose_split_for_good(tmp_path: Path) -> None:
    data = text_config(tmp_path, name="pydoc", embedded=True, vocabulary=500)
    lines = prepare_text(data)
    prints = read_corpus(data).fingerprint
    assert lines[0].startswith(f"train: {prints['train']['num_tokens']:,} tokens in ")
    assert 25_000 < prints["train"]["num_tokens"] < 100_000
    assert prints["train"]["vocabulary"] == 500
    for split in ("val", "test"):
        assert 0.05 < prints[split]["num_tokens"] / prints["train"]["num_tokens"] < 0.25
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert prepare_text(data) == lines and {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    # a paragraph that two topics hold is in one split only
    texts = make_texts(10**6)
    long = {s: {line for line in t.splitlines() if len(line.split()) > 20} for s, t in texts.items()}
    assert len(long["train"]) > 100
    for split in ("val", "test"):
        assert len(long[split] & long["train"]) <= 0.02 * len(long[split])
