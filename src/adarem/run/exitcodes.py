"""Exit codes of `adarem`, read by the launcher and by slurm/run.sbatch."""

OK = 0
FAILED = 1  # an error that the program did not foresee, or a failed cell in a launch
USER_ERROR = 2  # a mistake that the user can mend; starting again without mending it is of no use
DIVERGED = 3  # the loss became non-finite; the run is finished
REQUEUE = 75  # interrupted by a signal after a checkpoint: start again (EX_TEMPFAIL of sysexits.h)
