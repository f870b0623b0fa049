"""Images on disk, their .beton files, and the loaders that bring them to the trainer as uint8 batches.

Importing this package imports nothing: `prepare`, `fingerprint` and `beton` need no torch, `loaders` needs it.
"""
