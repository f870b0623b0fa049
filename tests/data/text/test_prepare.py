"""`prepare` for text writes an embedded corpus once, and checks any other."""

from pathlib import Path

import pytest

from adarem.data.text.corpus import read_corpus
from adarem.data.text.prepare import prepare_text
from adarem.run.errors import UserError
from tests.support.texts import text_config


def test_embedded_corpus_is_written_once(tmp_path: Path) -> None:
    data = text_config(tmp_path, name="pydoc", embedded=True, vocabulary=500)
    lines = prepare_text(data)
    prints = read_corpus(data).fingerprint
    assert lines[0].startswith(f"train: {prints['train']['num_tokens']:,} tokens in ")
    assert 25_000 < prints["train"]["num_tokens"] < 100_000
    assert prints["train"]["vocabulary"] == 500
    for split in ("val", "test"):
        assert 0.05 < prints[split]["num_tokens"] / prints["train"]["num_tokens"] < 0.25
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()}
    assert prepare_text(data) == lines
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == before


def test_other_embedded_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data.name=ptb: the embedded text is pydoc; set data.embedded=false"):
        prepare_text(text_config(tmp_path, embedded=True))


def test_files_of_the_user_are_checked_and_never_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ptb.train.txt: cannot be read"):
        prepare_text(text_config(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_file_under_the_name_of_the_embedded_text_stays(tmp_path: Path) -> None:
    data = text_config(tmp_path, name="pydoc", embedded=True, vocabulary=500)
    mine = tmp_path / "pydoc.valid.txt"
    mine.write_text("my own words\n")
    with pytest.raises(
        UserError, match=f"{mine}: not the embedded text, and not overwritten; choose another data.root"
    ):
        prepare_text(data)
    assert list(tmp_path.iterdir()) == [mine] and mine.read_text() == "my own words\n"
    mine.unlink()
    prepare_text(data)
    (tmp_path / "pydoc.test.txt").unlink()
    prepare_text(data)  # the two others are its own
    assert (tmp_path / "pydoc.test.txt").exists()
