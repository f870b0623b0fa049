"""`adarem prepare` for text: writes the embedded corpus where it is missing, and checks the files."""

import os

from adarem.data.ownership import check_same
from adarem.data.text.corpus import SPLITS, TextFingerprint, read_corpus, text_path
from adarem.data.text.pydoc import make_texts
from adarem.run.config import TextConfig
from adarem.run.errors import UserError
from adarem.run.files import write_atomically


def prepare_text(data: TextConfig) -> list[str]:
    """Writes an embedded corpus that is not there yet, checks the files, and returns a line about each split.

    Raises:
        UserError: see read_corpus; the folder cannot be written, or holds another file under one of the names.
    """
    paths = {split: text_path(data, split) for split in SPLITS}
    if data.embedded and not all(p.exists() for p in paths.values()):
        if data.name != "pydoc":
            raise UserError(f"data.name={data.name}: the embedded text is pydoc; set data.embedded=false")
        texts = make_texts(data.vocabulary)
        present = [split for split, path in paths.items() if os.path.lexists(path)]
        for split in present:
            check_same(paths[split], texts[split].encode(), "the embedded text")
        for split in texts.keys() - set(present):
            write_atomically(paths[split], texts[split])
    return [
        f"{split}: {found['num_tokens']:,} tokens in {found['num_lines']:,} sentences, vocabulary "
        f"{found['vocabulary']:,}, content {found['content_hash'][:16]}{_left_out(found)}"
        for split, found in read_corpus(data).fingerprint.items()
    ]


def _left_out(found: TextFingerprint) -> str:
    invisible = found.get("invisible", 0)
    return f"; {invisible:,} characters without width are left out" if invisible else ""
