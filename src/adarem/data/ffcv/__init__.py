"""``.beton`` files: format, writer and reader. The only place that imports ffcv.

In: images or a .beton file. Out: a .beton file or uint8 batches.
"""
