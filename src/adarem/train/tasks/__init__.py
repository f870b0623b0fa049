"""What a run learns: batches, loss and evaluation. The trainer knows only the protocol in ``base``.

In: a config and its data. Out: losses and evaluations.
"""
