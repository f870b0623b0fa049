"""The packages that adarem's metadata asks for, by extra; and what to say of an import that failed.

Standard library only, and importing none of them: it serves where one is missing, broken, or shadowed by a file.
"""

import importlib.metadata
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

EXTRAS = ("harness", "ffcv", "workspaces")
# What only another package asks for: hydra's omegaconf, torchvision's PIL; and what ffcv and numba do.
_DEFAULT_EXTRA, _OTHER_EXTRAS = "harness", {"cv2": "ffcv", "llvmlite": "ffcv"}
_OWN = ("adarem", "__main__", "runpy")

# Packages whose module bears another name.
_MODULES = {
    "hydra-core": "hydra",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "tbb": "",  # a shared library, and no module
    "wandb-workspaces": "wandb_workspaces",
}


@dataclass(frozen=True)
class Requirement:
    """One line of adarem's metadata."""

    package: str  # as pip knows it
    module: str  # as it is imported; empty for a package without a module
    extra: str | None  # None: of the optimizers alone
    versions: str  # ">=1.3,<1.4"; empty: any

    def installed(self) -> str | None:
        """Its version here, or None."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None


def requirements() -> list[Requirement]:
    """What the metadata of the installed adarem asks for, of all EXTRAS; nothing where adarem is not installed."""
    try:
        lines = importlib.metadata.requires("adarem") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        extra = re.search(r"""extra == ['"](\w+)['"]""", line)
        named = re.match(r"([A-Za-z0-9_.-]+)\s*\(?([^;)]*)", line)
        assert named
        if extra is None or extra[1] in EXTRAS:
            package = named[1]
            module = _MODULES.get(package.lower(), package.replace("-", "_"))
            found.append(Requirement(package, module, extra and extra[1], named[2].strip()))
    return found


def install_command(extra: str | None) -> str:
    """What brings the packages of an extra; None: torch."""
    return f"pip install 'adarem[{extra}]'" if extra else "pip install torch"


def import_problem(error: BaseException) -> str | None:
    """``<module>: <what is wrong>; <what to do>`` for an error that a missing, broken or shadowed package raised.

    Returns:
        None for any other error, one of adarem's own modules included.
    """
    module = _culprit(error)
    if _of_memory(error):
        what = f"{module}: cannot be imported" if module else "memory: there is no more"
        return f"{what} ({_first_line(error)}); raise the limit (`ulimit -v`, or the job's memory)"
    if module is None or module in _OWN:
        return None
    if shadow := shadowing_file(module):
        return f"{module}: {shadow} is imported in place of the real one; {_how_to_reveal(shadow)}"
    if module in sys.stdlib_module_names:
        return f"{module}: {sys.executable} does not have this part of Python; install a complete Python"
    if _place_of(module) is None:
        default = _OTHER_EXTRAS.get(module, _DEFAULT_EXTRA)
        extra = next((r.extra for r in requirements() if r.module == module), default)
        return f"{module}: not installed; run `{install_command(extra)}`"
    what = _first_line(error)
    remedy = f"run `pip install --force-reinstall --no-deps {_package_of(module) or module}`"
    return f"{module}: cannot be imported ({type(error).__name__}: {what}); {remedy}"


def shadowing_file(module: str) -> Path | None:
    """The file that Python takes for ``module`` although the real one lies, or would lie, elsewhere; mostly None."""
    place = _place_of(module)
    if place is None:
        return None
    if module in sys.stdlib_module_names:
        home = Path(os.__file__).parent
    elif package := _package_of(module):
        home = Path(str(importlib.metadata.distribution(package).locate_file("")))
    else:
        return place if any(r.module == module for r in requirements()) else None
    return None if place.is_relative_to(home) else place


def _how_to_reveal(shadow: Path) -> str:
    """What to do about a file that hides a module, by why Python finds it first."""
    file = shadow.absolute()
    root = file.parents[1] if file.stem == "__init__" else file.parent
    for entry in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if Path(entry).absolute() == root:
            return f"take {entry} out of PYTHONPATH, or rename it"
    return "rename it, or start in another folder"


def _of_memory(error: BaseException) -> bool:
    """Whether there is too little memory, for a program or for a library that is to be mapped."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in text for words in ("failed to map segment", "cannot allocate memory", "can't allocate memory")
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _culprit(error: BaseException) -> str | None:
    """The top-level module whose import raised ``error``; None where no import did."""
    if isinstance(error, ImportError) and error.name:
        name = _top(error.name)
        if isinstance(error, ModuleNotFoundError) or _place_of(name):
            return name  # else a part of a package, as torch's _C
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        name = _top(error.obj.__name__)  # a file of that name, which lacks what the package has
        if shadowing_file(name):
            return name
    if isinstance(error, SyntaxError) and error.filename:
        return _module_of_file(Path(error.filename))
    found, frame = None, error.__traceback__
    while frame:
        code, name = frame.tb_frame.f_code.co_name, _top(str(frame.tb_frame.f_globals.get("__name__")))
        if code == "<module>" and name not in _OWN:
            found = name
        frame = frame.tb_next
    return found


def _top(name: str) -> str:
    return name.partition(".")[0]


def _module_of_file(file: Path) -> str | None:
    roots = [Path(place).absolute() for place in sys.path if file.is_relative_to(Path(place).absolute())]
    return file.relative_to(max(roots, key=lambda r: len(r.parts))).parts[0].removesuffix(".py") if roots else None


def _place_of(module: str) -> Path | None:
    """The file or folder that Python imports as ``module``, which is not imported for that."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
    return Path(str(places[0])) if places else None


def _package_of(module: str) -> str | None:
    """The installed package that has ``module``, as pip knows it."""
    for r in requirements():
        if r.module == module:
            return r.package if r.installed() else None
    return next(iter(importlib.metadata.packages_distributions().get(module, ())), None)
