"""``adarem init``: copies the configs and the Slurm scripts that come with adarem into a folder, to be edited there."""

import shutil
from pathlib import Path

from adarem.resources import shipped_configs, shipped_scripts
from adarem.run.errors import UserError


def init(folder: Path) -> list[Path]:
    """Makes ``configs/`` and ``slurm/`` in ``folder`` and returns their paths.

    Raises:
        UserError: one of them is there already; nothing is copied then.
    """
    sources = {folder / "configs": shipped_configs(), folder / "slurm": shipped_scripts()}
    for target in sources:
        if target.exists() or target.is_symlink():
            raise UserError(f"{target}: exists, and is not overwritten; move it away, or start in another folder")
    for target, source in sources.items():
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a copy that was killed
        shutil.copytree(source, partial)
        partial.rename(target)
    return list(sources)
