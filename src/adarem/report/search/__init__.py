"""What a search found so far: trials, the best of them, what fewer trials would have found, and moved settings.

In: a sweep as it was read. Out: plain data and their CSVs; figures are drawn of them in ``report.figures``.
"""
