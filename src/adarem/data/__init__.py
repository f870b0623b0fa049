"""Data plane: writing and reading image data."""
