"""What tests of several packages share. Tests import it as ``tests.support``, and so do benchmarks."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the checkout
