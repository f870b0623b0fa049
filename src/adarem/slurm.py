"""Where jobs that were queued with version 0.1 look for ``adarem.launch.slurm.requeue``; goes with version 0.3."""

import runpy

runpy.run_module("adarem.launch.slurm.requeue", run_name=__name__, alter_sys=True)
