"""``cpu_kernel.cpp``, compiled when it is first asked for and kept.

A C++ compiler is all that it needs, no torch headers and no build system; compiling takes a few seconds once for each
machine and the result is kept in ``$XDG_CACHE_HOME/adarem`` (``~/.cache/adarem``).
"""

import ctypes
import functools
from pathlib import Path

from adarem import native

_FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
# Tried in turn: all the processor has and threads; a compiler without OpenMP (Apple's); one without -march=native.
_TUNING = (("-march=native", "-fopenmp"), ("-march=native",), ("-fopenmp",), ())


@functools.cache
def find() -> native.Loaded:
    """The compiled kernels, or why there are none."""
    # Where the processor cannot be identified, the cache's files must run on any of its kind.
    tunings = [t for t in _TUNING if native.processor() or "-march=native" not in t]
    return native.load(
        native.Source(
            Path(__file__).with_name("cpu_kernel.cpp"),
            variable="CXX",
            needs="g++ or clang++",
            compilers=("c++", "g++", "clang++"),
            options=tuple(_FLAGS + t for t in tunings),
            self_test="adarem_self_test",
        )
    )


def library() -> ctypes.CDLL:
    """The compiled kernels.

    Raises:
        RuntimeError: there are none; the message says why.
    """
    found = find()
    if found.library is None:
        raise RuntimeError(f"`fused=True` on the CPU: {found.note}")
    return found.library
