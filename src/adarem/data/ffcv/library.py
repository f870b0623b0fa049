"""Imports FFCV 1.0.2 the one way that this package can use it, and re-exports what is used.

FFCV builds a numba typed dictionary while it is imported, which compiles for 3 s; a plain dictionary does the same
work. It also sets torch's thread count for the process. Both are undone here, and whatever else of FFCV's inside
is relied on (see adarem.data.ffcv.reader) is relied on for this exact version.
"""

import ctypes
import importlib.metadata

from adarem.run.errors import UserError

VERSION = "1.0.2"

try:
    _found = importlib.metadata.version("ffcv")
except importlib.metadata.PackageNotFoundError:
    _found = "none"
if _found != VERSION:
    raise UserError(
        f"data.backend=ffcv: needs ffcv {VERSION}, found {_found}; run `pip install 'adarem[ffcv]'`, or set "
        "data.backend=folder"
    )

import numba.typed  # noqa: E402 - only once ffcv is known to be there: its extra brings numba
import torch  # noqa: E402

_typed_dict, _threads = numba.typed.Dict, torch.get_num_threads()
numba.typed.Dict = dict
try:
    from ffcv import libffcv
    from ffcv.loader import Loader, OrderOption
    from ffcv.loader import loader as loader_module
    from ffcv.memory_managers.base import MemoryManager
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.compiler import Compiler
    from ffcv.pipeline.operation import Operation
    from ffcv.pipeline.pipeline_spec import PipelineSpec
    from ffcv.pipeline.state import State
    from ffcv.reader import Reader
except ImportError as e:
    raise UserError(
        f"data.backend=ffcv: ffcv {VERSION} does not load ({e}); install setuptools if distutils is missing, else "
        f"rebuild it with `pip install --force-reinstall --no-cache-dir --no-binary ffcv ffcv=={VERSION}`, or set "
        "data.backend=folder"
    ) from None
finally:
    numba.typed.Dict = _typed_dict
    torch.set_num_threads(_threads)

__all__ = [
    "AllocationQuery",
    "Compiler",
    "Loader",
    "MemoryManager",
    "Operation",
    "OrderOption",
    "PipelineSpec",
    "Reader",
    "State",
    "address_of",
    "libffcv",
    "loader_module",
]


def address_of(function: "ctypes._NamedFuncPointer") -> int:
    """The address of a C function, which ctypes loaded."""
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address
    return address
