"""`adarem doctor`: what this machine has and what it lacks, with the fix for each failure.

In: a config or none. Out: one line for each check, and an exit code. Imports run, data, and Slurm's commands of launch.
"""

from adarem.doctor.all_checks import doctor

__all__ = ["doctor"]
