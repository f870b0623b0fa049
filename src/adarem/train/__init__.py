"""``adarem train``: trains one run directory, on as many ranks as its config says.

In: config.yaml and the data. Out: every other file of the run. Imports run, data, optim and tracking.
"""
