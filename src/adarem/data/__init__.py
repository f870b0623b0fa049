"""`adarem prepare`, and the loaders that bring a prepared data set to the trainer.

In: a folder of images or three text files. Out: checked files with a fingerprint, and batches. Imports run.
"""

from adarem.data.prepared import check_prepared, is_prepared

__all__ = ["check_prepared", "is_prepared"]
