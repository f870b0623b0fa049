"""Folders of images: the source, its order and crops, the checks, and the plain loader.

In: <root>/<split>/<class>/*. Out: uint8 batches. Imports run.
"""
