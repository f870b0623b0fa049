"""Puts configs/, slurm/ and results/paper/, which stay at the top of the repository, into the package.

An editable install reads them where they are: adarem.resources looks into the package first, then into the checkout.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = {"configs": "*.yaml", "slurm": "*.sbatch", "results/paper": "*"}  # folder: its files


class BuildWithShippedFiles(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "adarem", "shipped")
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build: a file may have been removed since
        for folder, pattern in SHIPPED.items():
            for file in Path(folder).rglob(pattern):
                if file.is_file():
                    (target / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target / file)


setup(cmdclass={"build_py": BuildWithShippedFiles})
