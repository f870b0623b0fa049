"""Files that are complete or absent."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.run.errors import UserError
from adarem.run.files import append_line, write_atomically


@pytest.mark.parametrize("write", [write_atomically, append_line])
def test_a_transient_fault_is_retryable_and_a_full_disk_is_not(
    write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"text": "x"} if write is append_line else "x"
    for number, retryable in ((errno.EIO, True), (errno.ESTALE, True), (errno.ENOSPC, False)):

        def fail(_handle: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(UserError, match="cannot be written") as e:
            write(tmp_path / "file", data)
        assert e.value.retryable is retryable
