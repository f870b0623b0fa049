"""The figures of a sweep.

In: a table. Out: matplotlib figures, as PNG and SVG.
"""
