"""Exit codes of `adarem`, which the launcher and slurm/run.sbatch read."""

OK = 0
FAILED = 1  # an error that the program did not foresee, or a failed run in a launch
USER_ERROR = 2  # a mistake that the user has to fix; without that another start fails too
DIVERGED = 3  # the loss is not finite any more; the run is finished
REQUEUE = 75  # interrupted by a signal after a checkpoint: start again (EX_TEMPFAIL of sysexits.h)
