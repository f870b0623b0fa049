"""The ranks of one run: how they meet, what they exchange outside of DDP, how they stop, and who notices a lost one.

In: the launcher's environment. Out: a ``RankContext``. Imports run and torch.
"""
