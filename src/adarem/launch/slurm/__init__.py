"""The Slurm side of a launch: sbatch lines, the queue, submission, and whether a job that ended starts again.

In: a sweep's folder and its runs. Out: jobs. The only package that calls Slurm's programs.
"""
