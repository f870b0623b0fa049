"""Files are complete or absent; what cannot be read is one line that names the file."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.run.errors import UserError
from adarem.run.files import append_line, read_json, read_lines, read_yaml, write_atomically


def test_write_atomically_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomically(target, "old")
    os.chmod(target, 0o600)
    with pytest.raises(TypeError):
        write_atomically(target, 3)  # type: ignore[arg-type]  # the point of the test
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    write_atomically(target, "new")
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    target = tmp_path / "progress.json"
    write_atomically(target, json.dumps({"x": [0] * 5000}))
    program = (
        "import sys, json; from pathlib import Path; from adarem.run.files import write_atomically\n"
        "for i in range(300): write_atomically(Path(sys.argv[1]), json.dumps({'x': [i] * 5000}))"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(target)])
    while writer.poll() is None:
        assert len(json.loads(target.read_text())["x"]) == 5000
        time.sleep(0.001)
    assert writer.returncode == 0
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name: {\n}}", "not valid YAML at line 2; fix it"),
        (b"name: 2024-99-99", "not valid YAML; fix it"),
        (b"!!python/object/apply:os.system ['touch pwned']", "not valid YAML at line 1; fix it"),
        (b"- table2", "holds no mapping; fix it"),
        (b"", "holds no mapping; fix it"),
        (None, "a folder and no file; remove it, or put the file itself there"),
    ],
)
def test_yaml_that_cannot_be_read_is_one_line(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_yaml(path, "fix it")
    assert str(caught.value) == f"{path}: {words}"


def test_yaml_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x.yaml: no such file; fix it"):
        read_yaml(tmp_path / "x.yaml", "fix it")
    with pytest.raises(UserError, match=r"^no run$"):
        read_yaml(tmp_path / "x.yaml", "fix it", absent="no run")


def test_json_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    assert read_json(path) is None
    for text, words in (("{", "not readable as JSON"), ("[]", "holds no JSON object")):
        path.write_text(text)
        with pytest.raises(UserError, match=words) as caught:
            read_json(path)
        assert "\n" not in str(caught.value)


def test_a_line_cut_short_spoils_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    assert read_lines(path) == ([], 0)
    append_line(path, {"a": 1})
    with open(path, "a") as f:
        f.write('{"a": 2')
    append_line(path, {"a": 3})
    with open(path, "a") as f:
        f.write("[4]\n")
    assert read_lines(path) == ([{"a": 1}, {"a": 3}], 2)


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


@pytest.mark.parametrize("read", [lambda path: read_yaml(path, "remove it"), read_json])
def test_another_encoding_is_no_reason_to_remove_a_file(read, tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_bytes(b'{"name": "a",\n"label": "caf\xe9"}')
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value) == f"{path}, line 2: byte 0xe9 is not UTF-8; save it as UTF-8, or restore it"
    path.write_bytes(b'\xef\xbb\xbf{"label": "caf\xc3\xa9"}')  # as some editors begin a file
    assert read(path) == {"label": "café"}


def test_a_name_that_is_no_text_cannot_be_written_down(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"c.yaml: 'x\\udcfc' is not UTF-8; rename what has that name"):
        write_atomically(tmp_path / "c.yaml", "x\udcfc")
