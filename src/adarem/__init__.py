"""The AdaRem and AdaRem-S optimizers, and the harness that reproduces their paper.

``from adarem import AdaRem, AdaRemS`` needs torch alone; torch itself is imported only when one of them is asked for,
so that ``adarem status`` answers at once.
"""

__version__ = "0.1.0"
__all__ = ["AdaRem", "AdaRemS"]


def __getattr__(name: str):
    if name in __all__:
        from adarem import optim

        return getattr(optim, name)
    raise AttributeError(f"module 'adarem' has no attribute {name!r}")
