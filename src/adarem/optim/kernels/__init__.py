"""AdaRem's and AdaRem-S's step in one pass over memory: in come the step's tensors and settings, which are updated.

May import torch, and Triton in the modules of its name; ``fused`` chooses the kernel for a device.
"""
