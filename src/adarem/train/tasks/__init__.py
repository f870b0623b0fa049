"""What a run learns: its batches, loss and exact evaluation. The trainer knows only the protocol in ``base``.

In: a config and its data. Out: losses and evaluations. Imports run, data and train's models.
"""
