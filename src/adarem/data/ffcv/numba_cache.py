"""numba's machine code on disk: in a private folder, as it consists of pickles, and never a reason to fail.

numba itself keeps it next to the module or in ``NUMBA_CACHE_DIR``, whoever can write there.
"""

import contextlib
import functools
import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numba
from numba.core import caching

from adarem import caches
from adarem.native import SlowerWarning

_numba: Any = caching  # these parts have no types
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compiles with numba at the first call, without the GIL; the machine code is kept on disk where that can be."""
    dispatcher: Any = numba.njit(nogil=True)(function)
    if hasattr(dispatcher, "enable_caching"):  # not under NUMBA_DISABLE_JIT
        try:
            dispatcher._cache = _Cache(_OnDisk(function))
        except caches.NotPrivate as e:
            _warn_once(f"{e} (until then each process compiles anew)")
        except (RuntimeError, OSError) as e:  # numba finds no source
            _warn_once(f"{function.__module__}: numba keeps nothing of it on disk ({e}); install adarem from its files")
    return cast(Function, dispatcher)


@functools.cache
def _warn_once(line: str) -> None:
    warnings.warn(" ".join(line.split()), SlowerWarning, stacklevel=2)


@functools.cache
def _open_folder(given: str, subfolder: str) -> tuple[int, Path]:
    path = Path(os.path.abspath(given)) if given else caches.user_cache() / "numba"
    return caches.open_private(path / subfolder, "NUMBA_CACHE_DIR"), path / subfolder


class _Locator(_numba.UserProvidedCacheLocator):  # type: ignore[misc]
    """The folder by its handle, which nobody can put another one in the place of."""

    def __init__(self, function: object, file: str) -> None:
        super().__init__(function, file)
        self.handle, self.folder = _open_folder(_numba.config.CACHE_DIR, self.get_suitable_cache_subpath(file))
        self._cache_path = f"/proc/self/fd/{self.handle}"

    @classmethod
    def from_function(cls, function: object, file: str) -> "_Locator":
        return cls(function, file)


class _Implementation(_numba.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_Locator]


class _Files(_numba.IndexDataCacheFile):  # type: ignore[misc]
    """Reads files of one's own only, and writes them for oneself only."""

    folder = -1

    def _load_index(self) -> Any:
        self._check(self._index_name)
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        self._check(name)
        return super()._load_data(name)

    def _check(self, name: str) -> None:
        """Raises NotPrivate. Nobody else can put another file there between this and the reading."""
        try:
            os.close(caches.open_file(name, self.folder))
        except caches.NotPrivate as e:
            raise caches.NotPrivate(f"{name}: {e}") from None
        except FileNotFoundError:
            pass
        except OSError as e:  # a link, for one
            raise caches.NotPrivate(f"{name}: {e.strerror}, so it is not loaded; remove it") from None

    @contextlib.contextmanager
    def _open_for_write(self, path: str) -> Iterator[BinaryIO]:
        name = os.path.basename(path)
        partial = f"{name}.tmp.{secrets.token_hex(8)}"
        try:
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self.folder)
            with open(handle, "wb") as f:
                yield f
            os.replace(partial, name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial, dir_fd=self.folder)
            raise


class _OnDisk(_numba.FunctionCache):  # type: ignore[misc]
    _impl_class = _Implementation

    def __init__(self, function: object) -> None:
        super().__init__(function)
        locator = self._impl.locator
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, locator.get_source_stamp())
        self._cache_file.folder = locator.handle

    @property
    def cache_path(self) -> str:
        return str(self._impl.locator.folder)


class _Cache:
    """Numba's cache of a function on disk, where damaged or foreign files, a full disk and missing rights cost time."""

    def __init__(self, on_disk: Any) -> None:
        self._on_disk = on_disk
        self.cache_path = on_disk.cache_path
        self.flush = on_disk.flush

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            return self._on_disk.load_overload(signature, target)
        except caches.NotPrivate as e:
            _warn_once(f"{self.cache_path}/{e} (until then each process compiles anew)")
        except Exception as e:  # unpickling raises anything
            _warn_once(f"{self.cache_path}: damaged ({type(e).__name__}), so it is made anew; see if that comes again")
            with contextlib.suppress(Exception):
                self.flush()
        return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        try:
            self._on_disk.save_overload(signature, compiled)
        except caches.NotPrivate:
            pass  # it is left as it is; loading has said so
        except Exception as e:  # pickling too
            _warn_once(f"{self.cache_path}: cannot be written ({e}); set NUMBA_CACHE_DIR to a folder of your own")
