"""What a training imports, in one module: the process that forks ranks (launch/fork_server.py) imports it once.

Only imports: nothing is computed here, no thread is started and no GPU is looked at, so that a fork can do all of it.
FFCV itself is left to each rank, because it starts a thread.
"""

import contextlib
import os

import numpy as np

import adarem.train.train
from adarem.optim import compat

compat.import_dynamo()

with contextlib.suppress(ImportError):  # extras
    import torchvision  # noqa: F401
with contextlib.suppress(ImportError):
    import adarem.data.ffcv.kernels
    import adarem.data.ffcv.partial_decode  # noqa: F401

# A new process draws numpy's seed from the system; forks would share theirs.
os.register_at_fork(after_in_child=lambda: np.random.seed())
