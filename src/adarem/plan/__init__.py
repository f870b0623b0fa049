"""``adarem plan``: from configs and overrides to frozen run directories. The only place that knows Hydra.

In: configs/ and the command line. Out: runs/<sweep>/. Imports run; no torch.
"""
