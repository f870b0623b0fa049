"""``cpu_kernel.cpp``, compiled when it is first asked for and kept.

A C++ compiler is all that it needs, no torch headers and no build system; compiling takes a few seconds once for each
machine and the result is kept in ``$XDG_CACHE_HOME/adarem`` (``~/.cache/adarem``). Without a compiler ``fused=True``
is refused and everything else works.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

_SOURCE = Path(__file__).with_name("cpu_kernel.cpp")
_FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
# Tried in turn: all the processor has and threads; a compiler without OpenMP (Apple's); one without -march=native.
_TUNING = (("-march=native", "-fopenmp"), ("-march=native",), ())


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            return name
    raise RuntimeError(
        "`fused=True` on the CPU needs a C++ compiler: install g++ or clang++, set CXX, or leave fused unset"
    )


def _processor() -> str:
    """What -march=native depends on: a cache in a shared home serves unlike machines."""
    try:
        text = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        return "\n".join(line for line in text.splitlines() if line.startswith(("model name", "flags", "Features")))
    except OSError:
        return platform.processor()


def _cache_dir() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adarem"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(base, os.W_OK):
            return base
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="adarem-"))


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels.

    Raises:
        RuntimeError: there is no C++ compiler, or it fails; the message has its last line.
    """
    cxx = _compiler()
    source = _SOURCE.read_bytes()
    version = subprocess.run([cxx, "--version"], capture_output=True, text=True).stdout
    key = hashlib.sha256("\0".join([source.decode(), version, _processor(), repr((_FLAGS, _TUNING))]).encode())
    target = _cache_dir() / f"cpu_kernel-{key.hexdigest()[:16]}.so"
    if not target.exists():
        _compile(cxx, target)
    return ctypes.CDLL(str(target))


def _compile(cxx: str, target: Path) -> None:
    # Ranks of one job may all come here at once: each compiles for itself, the last rename wins.
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        built = Path(scratch) / target.name
        for tuning in _TUNING:
            done = subprocess.run(
                [cxx, *_FLAGS, *tuning, str(_SOURCE), "-o", str(built)], capture_output=True, text=True
            )
            if done.returncode == 0:
                os.replace(built, target)
                return
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise RuntimeError(f"`fused=True` on the CPU: {cxx} could not compile {_SOURCE.name}: {last}")


def available() -> bool:
    """Whether ``fused=True`` works on the CPU here; compiles the kernels if they are not compiled yet."""
    try:
        library()
    except RuntimeError:
        return False
    return True
