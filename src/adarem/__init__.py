"""The AdaRem and AdaRem-S optimizers, and the harness that reproduces their paper.

``from adarem import AdaRem, AdaRemS`` needs torch alone; torch itself is imported only when one of them is asked for,
so that ``adarem status`` answers at once.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["AdaRem", "AdaRemS"]

if TYPE_CHECKING:
    from adarem.optim import AdaRem, AdaRemS
else:  # a type checker that saw this would accept every name

    def __getattr__(name):
        if name in __all__:
            from adarem import optim

            return getattr(optim, name)
        raise AttributeError(f"module 'adarem' has no attribute {name!r}")

    def __dir__():
        return sorted((*__all__, "__version__"))
