"""What a process of :mod:`tests.support.warm` has imported from the start."""

import pytest  # noqa: F401  the main module of a child's parent
import torch._dynamo
import torch.distributed.checkpoint.state_dict
import torch.distributed.fsdp  # noqa: F401

import tests.support.sharding
import tests.support.stacks  # noqa: F401
