"""A file system small enough to be filled by a test."""

import os
import subprocess
from pathlib import Path


class Disk:
    """A small file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    def fill(self, leave: int = 0) -> None:
        free = os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_bsize
        with open(self.path / "filler", "wb") as f:
            f.write(bytes(max(0, free - leave)))

    def empty(self) -> None:
        (self.path / "filler").unlink()
