"""``adarem launch`` and ``adarem status``: starts what is not finished, here or on Slurm, and shows the state of runs.

In: run directories. Out: processes and jobs. Imports run, resources, data (is a data set prepared?) and plan's types;
no torch, and no Hydra.
"""
