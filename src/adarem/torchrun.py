"""Where jobs that were queued with version 0.1 look for ``adarem.launch.ranks``; goes with version 0.3."""

import runpy

runpy.run_module("adarem.launch.ranks", run_name=__name__, alter_sys=True)
