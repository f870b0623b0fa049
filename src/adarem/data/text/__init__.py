"""Text corpora as arrays of word numbers. No torch.

In: three files of words. Out: a checked corpus, and how an epoch is cut into batches.
"""
