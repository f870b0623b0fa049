"""Finds where a computation makes the host wait for the device: where a tensor's values are asked for."""

import sys
from collections import Counter
from typing import Any

from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Of Python, and what they and the C++ code come to. On a GPU each waits for all work before it.
_METHODS = {
    "item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__", "__array__",
    "is_nonzero", "equal", "allclose", "masked_select", "unique", "argwhere", "synchronize",
}  # fmt: skip
_OPERATIONS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero", "unique_dim"}


class HostWaits(TorchFunctionMode):
    """As a context manager: counts waits by the place in adarem that asks, ``train/metrics.py: _read``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._inner = _Operations(self.found)

    def __enter__(self) -> "HostWaits":
        self._inner.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._inner.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _METHODS:
            self.found[_place()] += 1
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.split(".")[0] in _OPERATIONS:
            self._found[_place()] += 1
        return func(*args, **(kwargs or {}))


def _place() -> str:
    """The innermost function of adarem that is being executed, else the innermost of all."""
    frame: Any = sys._getframe(2)
    first = frame
    while frame is not None and "/adarem/" not in frame.f_code.co_filename:
        frame = frame.f_back
    frame = frame or first
    return f"{frame.f_code.co_filename.rpartition('/adarem/')[2]}: {frame.f_code.co_name}"
