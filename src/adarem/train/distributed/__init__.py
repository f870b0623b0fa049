"""The ranks of a run: how they meet, what they exchange outside of DDP, and who notices that one is lost.

In: the environment that torchrun or srun sets. Out: a process group.
"""
