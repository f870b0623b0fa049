"""The table of a sweep: its cells, and how they are printed as Markdown, CSV, LaTeX and text.

In: the runs of a sweep and the paper's numbers. Out: text.
"""
