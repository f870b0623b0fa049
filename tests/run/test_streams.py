"""Standard streams: closed ones, other encodings, and text that would steer a terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adarem.run.streams import one_line, plain

SAY = "import sys; from adarem.run.streams import prepare; prepare(); "
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def python(program: str, environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[bytes]":
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    return subprocess.run(
        [sys.executable, "-c", program, *words], env={**kept, **environment}, capture_output=True, timeout=60
    )


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        (ASCII, b"a - b ? ?\n"),
        ({"PYTHONIOENCODING": "ascii"}, b"a - b ? ?\n"),
        ({"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "iso8859-1"}, b"a - b \xe9 ?\n"),
        ({"LC_ALL": "C.UTF-8"}, "a — b é λ\n".encode()),
        ({"LC_ALL": "C"}, "a — b é λ\n".encode()),  # Python takes UTF-8 there
    ],
)
def test_what_a_terminal_cannot_show_is_replaced(environment: dict[str, str], shown: bytes) -> None:
    done = python(SAY + r"print('a \u2014 b \xe9 \u03bb')", environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, b"")


def test_names_and_files_are_utf8_in_any_locale(tmp_path: Path) -> None:
    program = SAY + (
        "import json, subprocess; open(sys.argv[1], 'w').write('\\u03bb');"
        "child = subprocess.run([sys.executable, '-c', 'import sys; print(sys.flags.utf8_mode)'], capture_output=True);"
        "print(json.dumps([sys.argv[1], child.stdout.decode()]))"
    )
    place = str(tmp_path / "größe")
    done = python(program, ASCII, place)
    assert json.loads(done.stdout) == [place, "1\n"], done.stderr
    assert Path(place).read_bytes() == "λ".encode()


def test_a_name_that_is_no_text_can_be_shown() -> None:
    done = python(SAY + "print(sys.argv[1])", {"LC_ALL": "C.UTF-8"}, os.fsdecode(b"r\xfcns"))
    assert (done.returncode, done.stdout) == (0, b"r?ns\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_place_for_a_file(closed: str, tmp_path: Path) -> None:
    """The first free descriptor is that of the next file: what is printed would be written into it."""
    program = SAY + (
        "f = open('file', 'w'); print('out', flush=True); print('err', file=sys.stderr); f.write(str(f.fileno()));"
        "print(sys.stdout.isatty(), sys.stdin.read())"
    )
    script = f'exec {closed}; exec "$@"'
    done = subprocess.run(["bash", "-c", script, "bash", sys.executable, "-c", program], cwd=tmp_path, timeout=60,
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 0 and int((tmp_path / "file").read_text()) > 2


def test_control_characters_are_spelt_out() -> None:
    assert plain("a\x1b[31mb\x07\x9b2J\u202etxt\n\tc") == "a\\x1b[31mb\\x07\\x9b2J\\u202etxt\n\tc"
    assert one_line("a\nb\rc\td") == "a\\nb\\rc\\td"
    done = python(SAY + r"print('\x1b]0;title\x07x'); sys.stdout.write('\r5 %\rx\n')", {"LC_ALL": "C.UTF-8"})
    assert done.stdout == b"\\x1b]0;title\\x07x\n\r5 %\\rx\n"  # a bar begins with a carriage return
    done = python(SAY + r"print('\x1b[2J', file=sys.stderr)", {"LC_ALL": "C.UTF-8"})
    assert done.stderr == b"\\x1b[2J\n"


def test_a_library_that_draws_is_given_the_stream_itself() -> None:
    done = python(
        SAY + r"from adarem.run.streams import terminal; print('\x1b[1m', file=terminal(sys.stdout))",
        {"LC_ALL": "C.UTF-8"},
    )
    assert done.stdout == b"\x1b[1m\n"
