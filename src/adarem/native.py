"""Compiles a C or C++ source when it is first asked for, keeps the library in the user's cache, and loads it.

Whatever a machine lacks must not end a training: ``load`` gives a library or none, and one line for the user where
something is not as it should be. Standard library only.

- A library is loaded from bytes that were checked: from a file of one's own that nobody else can write to, whose name
  holds their hash. The file itself is not mapped, so that it may be cut, replaced or on a disk that runs no programs.
- A new one is loaded and called in a process of its own first, which it may end as it likes.
- Processes of one machine compile one after the other, so that all but one find the result. None waits for long.
- Scratch lies in the temporary directory, under a lock that ends with its process; the next to come removes the rest.

Run as a program, ``native.py LIBRARY FUNCTION`` is that process of its own.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

if __name__ != "__main__":  # which finds no packages
    from adarem import caches

COMPILE_SECONDS = 60.0  # for a compiler; it takes two or three on a machine that does nothing else
CHECK_SECONDS = 30.0  # for a new library's first call
PATIENCE = 4  # times as long for a program that gets on, on a machine that is busy
WAIT_SECONDS = 90.0  # for the process that compiles already
_STALE_SECONDS = 600.0  # writing a library into the cache takes far less
_SCRATCH = "adarem-build-"


class Source(NamedTuple):
    """What is compiled, and how."""

    file: Path
    variable: str  # as for find_compiler
    needs: str
    compilers: tuple[str, ...]
    options: tuple[tuple[str, ...], ...]  # tried in turn
    libraries: tuple[str, ...] = ()
    self_test: str = ""  # a function of the library without arguments; returns 0 where the library works


class SlowerWarning(UserWarning):
    """Something is missing or broken that costs time, and nothing else."""


class Loaded(NamedTuple):
    """A library; or None, and why there is none."""

    library: ctypes.CDLL | None
    note: str  # one line; empty where all is well


class NoLibrary(Exception):
    """There is no library; the message is a note."""


def load(source: Source) -> Loaded:
    """The library compiled from ``source``; raises nothing for what a machine, a cache or a compiler lacks."""
    _remove_abandoned()
    try:
        loaded = _load(source)
    except NoLibrary as e:
        loaded = Loaded(None, str(e))
    except OSError as e:  # no temporary directory, no process, no memory
        loaded = Loaded(None, f"{e.filename or source.file.name}: {e.strerror or e}; see to it, and start again")
    return loaded._replace(note=" ".join(loaded.note.split()))  # paths may hold line feeds


def processor() -> str:
    """What ``-march=native`` depends on, for caches that several machines share; empty where it cannot be found out."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return ""
    known = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join(known) if any(line.startswith(("flags", "Features")) for line in known) else ""


def _load(source: Source) -> Loaded:
    compiler = find_compiler(source.variable, source.compilers, source.needs)
    name = f"{source.file.stem}-{_key(source, compiler)}"
    with contextlib.closing(_Cache(name)) as cache:
        library = cache.load()
        if library is None:
            with _scratch(name if cache.usable else None) as scratch:
                library = cache.load()  # from a process that was at work
                if library is None:
                    data = _compile(source, compiler, scratch)
                    cache.store(data)
                    library = _map(data)
        return Loaded(library, cache.note)


def find_compiler(variable: str, compilers: tuple[str, ...], needs: str) -> list[str]:
    """The command that compiles; its first word is an absolute path.

    Args:
        variable: of the environment, names a compiler and its arguments, as in make: CXX or CC.
        compilers: where the variable is not set, the first of these that is installed.
        needs: what to install where none is.

    Raises:
        NoLibrary: there is none.
    """
    given = os.environ.get(variable, "").strip()
    for name in (given,) if given else compilers:
        try:
            words = [name] if shutil.which(name) else shlex.split(name)
        except ValueError as e:
            raise NoLibrary(f"{variable}={name}: {e}; set {variable} to a compiler, or unset it") from None
        if words and (found := shutil.which(words[0])):
            return [os.path.abspath(found), *words[1:]]
    if given:
        raise NoLibrary(f"{variable}={given}: no such program; set {variable} to a compiler, or unset it")
    raise NoLibrary(f"{', '.join(compilers)}: none is installed; install {needs}, or set {variable} to a compiler")


def _key(source: Source, compiler: list[str]) -> str:
    """Of what decides the library. A compiler is known by its file: its version would take a process at each start."""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):
        libc = None
    programs = [os.stat(found) for word in compiler if (found := shutil.which(word))]
    stamps = [(status.st_size, status.st_mtime_ns) for status in programs]
    parts = (source.file.read_bytes(), source[4:], compiler, stamps, libc, os.uname().machine, processor())
    return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest()[:16]


class _Done(NamedTuple):
    code: int  # negative: the signal that ended the program
    output: str
    errors: str


def _run(command: list[str], seconds: float, folder: Path) -> _Done:
    """Runs a program to its end, in ``folder``, where its temporary files go too; ends it where it takes too long."""
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as e:
        raise NoLibrary(f"{command[0]}: {e.strerror}; set a compiler that runs") from None
    with process:
        try:
            output, errors = _output(process, seconds)
        except BaseException as e:
            os.killpg(process.pid, signal.SIGKILL)  # what it started too
            if isinstance(e, subprocess.TimeoutExpired):
                raise NoLibrary(f"{command[0]}: does not end; set a compiler that does") from None
            raise
    return _Done(process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))


def _output(process: "subprocess.Popen[bytes]", seconds: float) -> tuple[bytes, bytes]:
    """What it writes until it ends. Raises TimeoutExpired where it takes too long for what it does."""
    done = 0.0
    for _ in range(PATIENCE):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=seconds)
        before, done = done, _cpu_seconds(process.pid)
        if done - before < seconds / 500:  # it sleeps; a machine that is thirty times too busy gives more
            break
    raise subprocess.TimeoutExpired(process.args, seconds)


def _cpu_seconds(session: int) -> float:
    """CPU time of a session's processes and of those that they waited for; 0 where /proc does not say."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _compile(source: Source, compiler: list[str], scratch: Path) -> bytes:
    """The library, tried out. Raises NoLibrary where no options give one that works."""
    built, end, why = scratch / "library.so", time.monotonic() + COMPILE_SECONDS, ""
    for options in source.options:
        built.unlink(missing_ok=True)
        command = [*compiler, *options, str(source.file), "-o", str(built), *source.libraries]
        done = _run(command, max(1.0, end - time.monotonic()), scratch)
        if done.code != 0:
            why = _reason(done)
        elif not built.is_file():
            why = "it writes no file"
        elif not (why := _try_out(built, source.self_test)):
            return built.read_bytes()
    remedy = f"install {source.needs}, or set {source.variable} to another compiler"
    if re.search("no space|quota", why, re.IGNORECASE):
        remedy = f"free some in {scratch.parent}, or set TMPDIR to another folder"
    raise NoLibrary(f"{shlex.join(compiler)}: cannot compile {source.file.name} ({why}); {remedy}")


def _try_out(built: Path, function: str) -> str:
    """Why a library cannot be loaded or called here; empty where it can, or where no Python can be started to see."""
    if getattr(sys, "frozen", False) or not re.match("(python|pypy)", Path(sys.executable or "").name):
        return ""
    done = _run([sys.executable, "-I", "-S", __file__, str(built), function], CHECK_SECONDS, built.parent)
    return "" if done.code == 0 else f"what it makes does not work: {_reason(done)}"


def _reason(done: _Done) -> str:
    """What a program said when it failed, on one line."""
    if done.code < 0:
        names = {known.value: known.name for known in signal.Signals}
        return names.get(-done.code, f"signal {-done.code}")  # real-time ones have no name
    lines = [" ".join(line.split()) for line in f"{done.output}\n{done.errors}".splitlines() if line.strip()]
    errors = [line for line in lines if re.search("error|fatal", line, re.IGNORECASE)]
    return ([*errors, *lines[-1:], f"exit code {done.code}"])[0][:200]


@contextlib.contextmanager
def _scratch(name: str | None) -> Iterator[Path]:
    """A folder in the temporary directory, removed at the end.

    Args:
        name: one process at a time holds the folder of a name, and others wait. None: one of one's own, at once.
    """
    parent = Path(tempfile.gettempdir())
    end = time.monotonic() + WAIT_SECONDS
    held: int | None = None
    while held is None:
        path = parent / f"{_SCRATCH}{os.geteuid()}-{name or secrets.token_hex(8)}"
        made = False
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)
            made = True
        try:
            held = _hold(path)
        except OSError:  # the name is taken by another user, or nothing can be locked here
            if name is None:
                break
            name = None
            if made:
                path.rmdir()
        if held is None and name is not None:
            time.sleep(0.05)
            name = name if time.monotonic() < end else None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if held is not None:
            os.close(held)


def _hold(folder: Path) -> int | None:
    """Locks a folder of one's own until the handle is closed or the process ends; None where another holds it.

    Raises:
        OSError: it cannot be locked, or is another user's.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:  # removed in the meantime
        return None
    try:
        if os.fstat(handle).st_uid != os.geteuid():
            raise PermissionError
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.lstat(folder)):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _remove_abandoned() -> None:
    """Removes the scratch folders that no process holds."""
    with contextlib.suppress(OSError):
        prefix = f"{_SCRATCH}{os.geteuid()}-"
        with os.scandir(tempfile.gettempdir()) as entries:
            found = [Path(entry.path) for entry in entries if entry.name.startswith(prefix)]
        for path in found:
            with contextlib.suppress(OSError):
                if (held := _hold(path)) is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    os.close(held)


class _Cache:
    """``$XDG_CACHE_HOME/adarem`` or ``~/.cache/adarem``: the files of one name, ``<name>-<hash of the content>.so``."""

    def __init__(self, name: str) -> None:
        self.note, self._name, self._handle = "", name, -1
        try:
            self._folder = caches.user_cache()
            self._handle = caches.open_private(self._folder, "XDG_CACHE_HOME")
        except caches.NotPrivate as e:
            self._give_up(str(e))

    @property
    def usable(self) -> bool:
        return self._handle >= 0

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _give_up(self, note: str) -> None:
        self.note = self.note or f"{note} (until then each process compiles anew)"
        self.close()

    def load(self) -> ctypes.CDLL | None:
        """The library that is kept; None where there is none, or none that can be trusted."""
        if not self.usable:
            return None
        try:
            names = sorted(n for n in os.listdir(self._handle) if re.fullmatch(f"{self._name}-[0-9a-f]{{64}}\\.so", n))
        except OSError as e:
            self._give_up(f"{self._folder}: {e.strerror}; set XDG_CACHE_HOME to a folder of your own")
            return None
        for name in names:
            data = self._read(name)
            if data is None:
                continue
            try:
                return _map(data)
            except OSError as e:  # linked against what this machine lacks
                self._give_up(f"{self._folder / name}: does not load here ({e}); install what it needs")
                return None
        return None

    def _read(self, name: str) -> bytes | None:
        """A file of one's own that is complete; one that is not complete is removed."""
        path = self._folder / name
        try:
            with open(caches.open_file(name, self._handle), "rb") as f:
                data = f.read()
        except caches.NotPrivate as e:
            self.note = self.note or f"{path}: {e}"
            return None
        except OSError as e:
            self.note = self.note or f"{path}: {e.strerror}, so it is not loaded; remove it"
            return None
        if hashlib.sha256(data).hexdigest() == name.removesuffix(".so").rpartition("-")[2]:
            return data
        self.note = self.note or f"{path}: damaged, so it is compiled anew; look at the disk if that comes again"
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._handle)
        return None

    def store(self, data: bytes) -> None:
        """Keeps a library: the file is complete or absent."""
        if not self.usable:
            return
        name = f"{self._name}-{hashlib.sha256(data).hexdigest()}.so"
        partial = f".{name}.{secrets.token_hex(8)}.partial"
        try:
            for other in os.listdir(self._handle):
                if re.fullmatch(r"\..*\.so\.[0-9a-f]{16}\.partial", other):
                    with contextlib.suppress(OSError):
                        if time.time() - os.stat(other, dir_fd=self._handle).st_mtime > _STALE_SECONDS:
                            os.unlink(other, dir_fd=self._handle)
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._handle)
            try:
                with open(handle, "wb") as f:
                    f.write(data)
                    f.flush()
                    os.fsync(f.fileno())
                os.replace(partial, name, src_dir_fd=self._handle, dst_dir_fd=self._handle)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(partial, dir_fd=self._handle)
                raise
        except OSError as e:
            self._give_up(f"{self._folder}: cannot be written ({e.strerror}); set XDG_CACHE_HOME to another folder")


# dlopen knows a library by its path: a handle's number that was used again would name the older library.
_open_for_ever: list[int] = []


def _map(data: bytes) -> ctypes.CDLL:
    """Loads a library from memory; through a folder of its own where the system does not allow that.

    Raises:
        OSError: it does not load.
    """
    with contextlib.suppress(AttributeError, OSError):
        handle = os.memfd_create("adarem")
        try:
            with open(handle, "wb", closefd=False) as f:
                f.write(data)
            library = ctypes.CDLL(f"/proc/self/fd/{handle}")
        except BaseException:
            os.close(handle)
            raise
        _open_for_ever.append(handle)
        return library
    with _scratch(None) as folder:
        path = folder / "library.so"
        path.write_bytes(data)
        return ctypes.CDLL(str(path))


def _main(library: str, function: str) -> int:
    try:
        loaded = _map(Path(library).read_bytes())
        return int(getattr(loaded, function)()) if function else 0
    except (OSError, AttributeError) as e:
        print(e, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
