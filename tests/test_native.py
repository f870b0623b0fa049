"""A library is loaded, or one line says why there is none, whatever compiler, cache and machine are like."""

import ctypes
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adarem import native
from tests.support import ROOT

CODE = "int answer(void) { return 42; }\nint self_test(void) { return %s; }\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source, an empty cache, an empty temporary directory, and no compiler set."""
    for name in ("temporary", "cache", "bin"):
        (tmp_path / name).mkdir(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "answer.c").write_text(CODE % 0)
    return tmp_path


def source(place: Path) -> native.Source:
    options = (("-shared", "-fPIC", "-no-such-option"), ("-shared", "-fPIC"))
    return native.Source(
        place / "answer.c", "CC", "a C compiler", ("no-such-compiler", "cc"), options, self_test="self_test"
    )


def script(place: Path, text: str, name: str = "compiler") -> Path:
    path = place / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def counting(place: Path, before: str = ":") -> Path:
    """A compiler that works, and writes a line each time that it compiles."""
    log = shlex.quote(str(place / "calls"))
    return script(place, f'echo x >> {log}\n{before}\nexec cc "$@"')


def calls(place: Path) -> int:
    return (place / "calls").read_text().count("x") if (place / "calls").exists() else 0


def cached(place: Path) -> list[Path]:
    folder = place / "cache" / "adarem"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def assert_works(loaded: native.Loaded, note: str = "") -> None:
    assert loaded.library is not None, loaded.note
    assert loaded.library.answer() == 42
    assert note in loaded.note and bool(note) == bool(loaded.note) and "\n" not in loaded.note


def assert_no_leftovers(place: Path) -> None:
    assert not list((place / "temporary").iterdir())
    assert all(p.suffix == ".so" and not p.name.startswith(".") for p in cached(place))


def test_a_library_is_compiled_once_and_kept_privately(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(counting(place)))
    assert_works(native.load(source(place)))
    assert calls(place) == 2  # the first options fail
    (kept,) = cached(place)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert_works(native.load(source(place)))
    assert calls(place) == 2
    assert_no_leftovers(place)


@pytest.mark.parametrize(
    "name, says",
    [
        ("/no/such/path/cc", "no such program"),
        ("no-such-ccache cc", "no such program"),
        ("cc '", "No closing quotation"),
        ("{place}/bin", "no such program"),
    ],
)
def test_a_compiler_that_is_not_there(name: str, says: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", name.format(place=place))
    loaded = native.load(source(place))
    assert loaded.library is None and loaded.note.startswith(f"CC={name.format(place=place)}: {says}")
    assert loaded.note.endswith("; set CC to a compiler, or unset it")
    assert_no_leftovers(place)


def test_no_compiler_at_all(place: Path) -> None:
    loaded = native.load(source(place)._replace(compilers=("no-such-compiler",)))
    assert loaded == (None, "no-such-compiler: none is installed; install a C compiler, or set CC to a compiler")


@pytest.mark.parametrize(
    "does, says",
    [
        ("echo 'x.c:1: fatal error: no disk' >&2; echo 'compilation terminated.' >&2; exit 1", "fatal error: no disk"),
        ("printf 'caf\\351\\n' >&2; exit 3", "caf"),
        ("exit 7", "exit code 7"),
        ("kill -SEGV $$", "SIGSEGV"),
        ("exit 0", "it writes no file"),
        ("eval o=\\${$(($# ))}; : > $o", "file too short"),
        ("eval o=\\${$(($# ))}; echo 'int main' > $o", "file too short"),
        ("eval o=\\${$(($# ))}; head -c 4000 /bin/sh > $o", "what it makes does not work"),
        # another kind of processor: e_machine is at 18
        (
            'cc "$@"; eval o=\\${$(($# ))}; printf "\\363" | dd of=$o bs=1 seek=18 conv=notrunc 2>/dev/null',
            "does not work",
        ),
        ('eval o=\\${$(($# ))}; cc "$@" && truncate -s 5000 $o', "what it makes does not work"),
    ],
)
def test_a_compiler_that_fails(does: str, says: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(script(place, does)))
    loaded = native.load(source(place))
    assert loaded.library is None and says in loaded.note and "\n" not in loaded.note
    assert (
        loaded.note.startswith(str(place / "bin" / "compiler"))
        and "; install a C compiler, or set CC to" in loaded.note
    )
    assert_no_leftovers(place)
    assert not cached(place)


def test_a_file_that_is_no_program(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = script(place, "")
    path.write_bytes(b"\x7fELF garbage")
    monkeypatch.setenv("CC", str(path))
    loaded = native.load(source(place))
    assert loaded == (None, f"{path}: Exec format error; set a compiler that runs")


@pytest.mark.parametrize("hangs", ["with a child", "reading", "checked"])
def test_a_compiler_that_hangs(hangs: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("COMPILE_SECONDS", "CHECK_SECONDS"):
        monkeypatch.setattr(native, limit, 1.0)
    pid = place / "pid"
    sleeps = f"sleep 600 & echo $! > {pid}; wait"  # a process of its own, as a compiler's are
    does = {"with a child": sleeps, "reading": "cat; exit 1"}
    if hangs == "checked":
        (place / "answer.c").write_text("#include <unistd.h>\n" + CODE % "pause()")
    else:
        monkeypatch.setenv("CC", str(script(place, does[hangs])))
    loaded = native.load(source(place))
    assert loaded.library is None and (hangs == "reading" or "does not end; set a compiler" in loaded.note)
    if pid.exists():
        end = time.monotonic() + 120  # a bound for a defect, not a measure of speed
        while Path(f"/proc/{pid.read_text().strip()}/cmdline").exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert time.monotonic() < end
    assert_no_leftovers(place)


def test_a_compiler_that_is_slow_may_take_longer_and_not_for_ever(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "COMPILE_SECONDS", 1.0)
    monkeypatch.setattr(native, "PATIENCE", 60)
    works = "x=0; while [ $x -lt 500000 ]; do x=$((x+1)); done"  # a second or more, of which it uses the processor
    monkeypatch.setenv("CC", str(script(place, f'{works}; exec cc "$@"')))
    assert_works(native.load(source(place)._replace(options=(("-shared", "-fPIC"),))))
    monkeypatch.setattr(native, "PATIENCE", 2)
    script(place, "while :; do :; done")
    assert native.load(source(place)).note == f"{place / 'bin' / 'compiler'}: does not end; set a compiler that does"
    assert_no_leftovers(place)


@pytest.mark.parametrize("returns", ["1", "(__builtin_trap(), 0)", "*(int *)0"])
def test_a_library_that_does_not_work_here_harms_nobody(returns: str, place: Path) -> None:
    (place / "answer.c").write_text(CODE % returns)
    loaded = native.load(source(place))
    assert loaded.library is None and "cannot compile answer.c (what it makes does not work: " in loaded.note
    assert not cached(place)
    assert_no_leftovers(place)


@pytest.mark.parametrize(
    "form", ["cc -m64 '-DX=a b'", "{place}/my tools/cc", "'{place}/my tools/cc' -g", "my tools/cc"]
)
def test_compilers_with_arguments_and_spaces(form: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "my tools").mkdir()
    (place / "my tools" / "cc").symlink_to("/usr/bin/cc")
    monkeypatch.chdir(place)
    monkeypatch.setenv("CC", form.format(place=place))
    assert_works(native.load(source(place)))


def folder_of(place: Path) -> Path:
    folder = place / "cache" / "adarem"
    folder.mkdir(0o700)
    return folder


def a_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (place / "cache" / "adarem").write_text("x")
    return "Not a directory"


def base_is_a_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "answer.c"))
    return "answer.c"


def no_home(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(place / "nonexistent"))
    return "nonexistent: no such folder; set HOME"


def nobody(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # a user id without an entry
    return "no such folder; set HOME"


def relative(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(place / "home"))
    return "home: no such folder"


def no_such_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    return "/proc/nowhere"


def open_to_all(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder_of(place).chmod(0o777)
    return f"can be written to by other users; `chmod 700 {place}/cache/adarem`, or set XDG_CACHE_HOME"


def another_users(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder_of(place)
    own = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: own + 1)
    return "belongs to another user; set XDG_CACHE_HOME"


def not_writable(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)  # root writes wherever it likes
    return "cannot be written (Permission denied)"


@pytest.mark.parametrize(
    "make",
    [
        a_file,
        base_is_a_file,
        no_home,
        nobody,
        relative,
        no_such_place,
        open_to_all,
        another_users,
        not_writable,
    ],
    ids=lambda make: make.__name__,
)
def test_a_cache_that_cannot_be_used(make, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = make(place, monkeypatch)
    monkeypatch.setenv("CC", str(counting(place)))
    for n in (2, 4):
        assert_works(native.load(source(place)), says)
        assert calls(place) == n
    assert not (place / "nonexistent").exists() and not (place / "home").exists()
    assert not list((place / "temporary").iterdir())
    assert make is a_file or not cached(place)


def emptied(kept: Path) -> None:
    kept.write_bytes(b"")


def cut(kept: Path) -> None:
    os.truncate(kept, kept.stat().st_size // 2)


def flipped(kept: Path) -> None:
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes(data)


def garbage(kept: Path) -> None:
    kept.write_bytes(os.urandom(5000))


@pytest.mark.parametrize("damage", [emptied, cut, flipped, garbage], ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_replaced(damage, place: Path) -> None:
    native.load(source(place))
    (kept,) = cached(place)
    good = kept.read_bytes()
    damage(kept)
    assert_works(native.load(source(place)), f"{kept}: damaged, so it is compiled anew")
    assert [p.read_bytes() for p in cached(place)] == [good]
    assert_works(native.load(source(place)))
    assert_no_leftovers(place)


def writable(kept: Path) -> str:
    kept.chmod(0o666)
    return "can be written to by other users"


def a_link(kept: Path) -> str:
    kept.rename(kept.with_name("elsewhere"))
    kept.symlink_to("elsewhere")
    return "Too many levels of symbolic links"


def a_pipe(kept: Path) -> str:
    kept.unlink()
    os.mkfifo(kept, 0o600)
    return "is no file"


def a_folder(kept: Path) -> str:
    kept.unlink()
    kept.mkdir(0o700)
    return "is no file"


@pytest.mark.parametrize("change", [writable, a_link, a_pipe, a_folder], ids=lambda change: change.__name__)
def test_what_is_no_file_of_ones_own_is_not_loaded(change, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(counting(place)))
    native.load(source(place))
    (kept,) = cached(place)
    says = change(kept)
    assert_works(native.load(source(place)), says)
    assert calls(place) == 4


def test_a_library_that_lacks_another_is_compiled_for_this_machine(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that a machine with OpenMP left in a home that they share."""
    other = place / "libother.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", other], input=b"int other;", check=True)
    with_other = script(place, f'[ -e {other} ] && set -- "$@" -Wl,--no-as-needed {other}; exec cc "$@"')
    monkeypatch.setenv("CC", str(with_other))
    assert_works(native.load(source(place)))
    other.unlink()
    before = cached(place)
    program = f"from adarem import native; from tests.test_native import *; print(native.load(source(Path('{place}'))))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert f"does not load here ({other}: cannot open shared object file" in done.stdout, done
    assert "library=<CDLL" in done.stdout
    assert cached(place) == before  # other machines may need it


def test_without_memory_files_a_folder_serves_and_goes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise PermissionError(13, "not here")

    monkeypatch.setattr("os.memfd_create", refuse)
    for _ in range(2):
        assert_works(native.load(source(place)))
        assert_no_leftovers(place)


_LOAD = """
import sys, tempfile
from pathlib import Path
from adarem import native
from tests.test_native import source
place = Path(sys.argv[1])
tempfile.tempdir = str(place / "temporary")
loaded = native.load(source(place))
print(loaded.library.answer(), loaded.note)
"""


def start(place: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", _LOAD, str(place)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_processes_that_come_together_compile_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(counting(place, "sleep 1")))
    processes = [start(place) for _ in range(4)]
    assert [p.communicate(timeout=120)[0].split() for p in processes] == [["42"]] * 4
    assert calls(place) == 2
    assert_no_leftovers(place)


def test_what_a_killed_process_left_is_removed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(counting(place, f"echo $$ > {place}/pid; sleep 600")))
    process = start(place)
    while not (place / "pid").exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert list((place / "temporary").iterdir())
    os.killpg(int((place / "pid").read_text()), signal.SIGKILL)
    script(place, 'exec cc "$@"')
    assert_works(native.load(source(place)))
    assert_no_leftovers(place)


def test_where_nothing_can_be_locked_each_process_compiles(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, kind: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert_works(native.load(source(place)))
    assert_no_leftovers(place)


@pytest.mark.parametrize("held", ["by a process that hangs", "by another user"])
def test_nobody_waits_for_ever(held: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "WAIT_SECONDS", 0.3)
    name = f"answer-{native._key(source(place), native.find_compiler('CC', ('cc',), ''))}"
    with native._scratch(name) as scratch:
        if held == "by another user":
            monkeypatch.setattr(native, "_hold", lambda folder: (_ for _ in ()).throw(PermissionError()))
        assert_works(native.load(source(place)))
        assert list((place / "temporary").iterdir()) == [scratch]
    assert_no_leftovers(place)


def test_one_process_is_told_of_two_libraries_apart(place: Path) -> None:
    """The loader knows a library by its path: the second must not be taken for the first."""
    (place / "other.c").write_text((CODE % 0).replace("42", "43"))
    first, second = native.load(source(place)), native.load(source(place)._replace(file=place / "other.c"))
    assert isinstance(first.library, ctypes.CDLL) and isinstance(second.library, ctypes.CDLL)
    assert (first.library.answer(), second.library.answer()) == (42, 43)


def test_the_processor_is_named_or_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, **_: "cpu : 0\nmodel name : x\nflags : avx2\n\nflags : no")
    assert native.processor() == "model name : x\nflags : avx2"
    monkeypatch.setattr(Path, "read_text", lambda path, **_: "model name : x\n")
    assert native.processor() == ""

    def absent(path: Path, **_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert native.processor() == ""


def test_notes_are_one_line_whatever_paths_hold(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "answer.c" / "a\nb"))
    assert_works(native.load(source(place)), "a b")
    monkeypatch.setenv("CC", "no\nsuch")
    assert native.load(source(place)).note == "CC=no such: no such program; set CC to a compiler, or unset it"


def test_a_full_temporary_directory_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(script(place, "echo 'fatal error: x.s: No space left on device' >&2; exit 1")))
    note = native.load(source(place)).note
    assert note.endswith(f"; free some in {place / 'temporary'}, or set TMPDIR to another folder")


def test_signals_without_a_name_are_a_reason_too() -> None:
    reasons = [native._reason(native._Done(-number, "", "")) for number in (9, 40)]
    assert reasons == ["SIGKILL", "signal 40"]
