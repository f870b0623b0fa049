"""The figures of a sweep, as PNG and SVG.

In: a table and its runs. Out: files. matplotlib is imported here alone, when the first figure is drawn.
"""
