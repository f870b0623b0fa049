"""The contract: configs, the catalog, run directories and sweeps; files, locks and errors.

In: files of a run or a sweep. Out: typed objects. Imports the standard library and yaml; no torch, no Hydra.
"""
