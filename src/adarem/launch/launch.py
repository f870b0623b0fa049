"""``adarem launch``: starts every run of a plan that is neither finished nor in progress, here or on Slurm.

Imports neither torch nor Hydra. A run's outcome is read from its directory, never from an exit code alone.
"""

from typing import TYPE_CHECKING

from adarem.data.text.corpus import read_corpus
from adarem.launch.local import launch_here
from adarem.launch.slurm.submit import launch_on_slurm
from adarem.run.config import TextConfig
from adarem.run.errors import UserError

if TYPE_CHECKING:  # a launch of a plan that is made needs no Hydra
    from adarem.plan.plan import Plan


def launch(plan: "Plan", *, dry_run: bool = False) -> int:
    """Starts what is left to do of a plan; doing so again starts nothing twice.

    Args:
        plan: the runs; their directories are written first.
        dry_run: print the exact commands and start nothing; writes nothing.

    Returns:
        An exit code of ``adarem.run.exitcodes``.

    Raises:
        UserError: the plan has no runs; the cluster that the config names cannot be used from here; a text's files are
            missing or differ from what the config expects.
    """
    if not plan.runs:
        raise UserError("grid: the plan has no runs; give each axis at least one value")
    if dry_run:
        plan.check_data()  # as writing the plan does
    clusters = {planned.config.cluster.name for planned in plan.runs}
    if len(clusters) > 1:
        raise UserError("cluster: the plan has both local and slurm runs; launch them separately")
    for data in {planned.config.data for planned in plan.runs if isinstance(planned.config.data, TextConfig)}:
        if not data.embedded and not dry_run:
            read_corpus(data)  # there is nothing to prepare: wrong files are found before the job waits in the queue
    if not dry_run:
        print(f"price    {plan.price().sum()}", flush=True)
    return launch_on_slurm(plan, dry_run=dry_run) if clusters == {"slurm"} else launch_here(plan, dry_run=dry_run)
