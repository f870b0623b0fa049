"""What Slurm is asked: sbatch lines, the queue, whether a job that ended starts again.

In: a sweep's folder. Out: jobs. The only place that calls Slurm's programs.
"""
