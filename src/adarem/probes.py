"""Where jobs that were queued with version 0.1 look for ``adarem.doctor.isolated_checks``; goes with version 0.3."""

import runpy

runpy.run_module("adarem.doctor.isolated_checks", run_name=__name__, alter_sys=True)
