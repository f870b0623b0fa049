"""``adarem launch`` and ``adarem status``: starts what is not finished, here or on Slurm, and says where it stands.

In: run directories. Out: processes and jobs. Imports run, plan and data's check that a data set is prepared; no torch.
"""
