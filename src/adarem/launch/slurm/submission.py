"""The jobs of one launch, submitted one after another: all that the site takes, in pieces where it takes no more."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from adarem.launch.commands import environment, publishes, report_arguments
from adarem.launch.preparation import unprepared
from adarem.launch.slurm.accounting import keep_array_job
from adarem.launch.slurm.commands import (
    array_command,
    array_list,
    job_file,
    prepare_command,
    prepare_name,
    report_command,
    slurm_folder,
)
from adarem.launch.slurm.job_file import write_job_file
from adarem.launch.slurm.limits import longest_array
from adarem.launch.slurm.queue import Job, cancel, jobs_named, keep_report_job, report_job
from adarem.launch.slurm.sbatch import NotSubmitted, new_token, submit
from adarem.run.config import ClusterConfig
from adarem.run.errors import UserError
from adarem.run.estimate import FLAT_TIME, time_limit
from adarem.run.files import read_file, write_atomically

if TYPE_CHECKING:
    from adarem.plan.plan import Plan, PlannedRun


class Submission:
    """Submits a launch's jobs, or only collects their lines when ``dry_run``.

    Args:
        queue: the sweep's jobs that wait or run already; they count for cluster.max_parallel.
    """

    def __init__(self, plan: "Plan", queue: Mapping[str, Job], *, dry_run: bool) -> None:
        self.plan, self.dry_run = plan, dry_run
        self.commands: list[list[str]] = []
        self.lists: list[Sequence[PlannedRun]] = []  # the runs of each array
        self.full: str | None = None  # what sbatch said when it took no more
        self.left: list[PlannedRun] = []  # what it did not take
        self._price = plan.price()
        self._longest: int | None | bool = False  # not asked yet
        self._prepared_by: dict[str, str] = {}  # a data set's key to the job that prepares it
        self._own: list[str] = []  # of these the ones that this launch submitted
        self._needed: set[str] = set()  # of these the ones that an array waits for
        self._arrays: list[str] = []  # that this launch submitted
        # How many runs each array may have at a time, for those that later ones have to leave room to.
        self._tasks: dict[str, int] = {}
        for job in queue.values():
            if not job.is_ending:
                self._tasks[job.array] = self._tasks.get(job.array, 0) + 1

    def arrays(
        self, cluster: ClusterConfig, runs: Sequence["PlannedRun"], rung: Sequence[str], ending: Sequence[str] = ()
    ) -> list[str]:
        """Submits runs of one shape, and before them a job for each data set that is not prepared.

        Args:
            rung: the arrays of the rung below.
            ending: the jobs of these runs that Slurm is about to end.

        Returns:
            The arrays' ids: several follow each other where the site takes no array so long.

        Raises:
            NotSubmitted: a refusal that has nothing to do with how many jobs there are.
        """
        found: list[str] = []
        left, size, shortened = list(runs), self._longest_array() or len(runs), False
        while left and self.full is None:
            piece = left[:size]
            before = found[-1:] or self._in_the_way(cluster, len(piece))
            try:
                found.append(self._array(cluster, piece, [*rung, *before, *ending], rung))
            except NotSubmitted as e:
                if e.kind not in ("full", "long") or len(piece) == 1 and e.kind == "long":
                    raise
                if len(piece) == 1:
                    self.full = e.said
                size, shortened = max(1, len(piece) // 2), e.kind == "full"
                continue
            left = left[len(piece) :]
            if shortened and left:  # what is taken is as much as fits, nearly: the report needs room as well
                self.full = "the limit of jobs is reached"
        self.left += left
        return found

    def _longest_array(self) -> int | None:
        if isinstance(self._longest, bool):
            self._longest = longest_array()
        return self._longest

    def _in_the_way(self, cluster: ClusterConfig, runs: int) -> list[str]:
        """The arrays that have to end first, so that at no time more runs train than cluster.max_parallel."""
        most = cluster.max_parallel
        if not most or not self._tasks or sum(self._tasks.values()) + min(runs, most) <= most:
            return []
        return list(self._tasks)

    def _array(
        self, cluster: ClusterConfig, runs: Sequence["PlannedRun"], waits: Sequence[str], rung: Sequence[str]
    ) -> str:
        sweep = self.plan.folder
        prepared_by = self._prepare(cluster, runs)
        cluster = replace(cluster, time=self._time_limit(cluster, runs))
        token = new_token()
        names = array_list(sweep, token)
        if not self.dry_run:
            write_atomically(names, "".join(f"{planned.config.run_name}\n" for planned in runs))
        after, others = ":".join(prepared_by) or None, list(dict.fromkeys(waits))
        command = array_command(sweep, token, len(runs), cluster, after, others)
        try:
            job = self._submit(command, cluster, token)
        except NotSubmitted as e:
            if e.kind != "unsure":  # where the answer is lost, the next launch looks for what is listed
                names.unlink(missing_ok=True)
            raise
        if not self.dry_run:
            keep_array_job(sweep, token, job)
        self._needed |= set(prepared_by)
        self._arrays.append(job)
        self._tasks[job] = len(runs)
        self.lists.append(runs)
        on = f", those that go on after job {':'.join(rung)}" if rung else ""
        further = [w for w in others if w not in rung]
        then = f", after job {':'.join(further)}" if further else ""
        shape = f"{cluster.nodes} nodes x {cluster.ranks_per_node} ranks each"
        print(f"array    job {job}: {len(runs)} runs, {shape}{on}{then}")
        return job

    def _prepare(self, cluster: ClusterConfig, runs: Sequence["PlannedRun"]) -> list[str]:
        """The jobs that write the data of these runs: those of an earlier launch that still wait, or new ones."""
        sweep, found = self.plan.folder, []
        for key, run in unprepared(runs).items():
            if key not in self._prepared_by:
                kept = slurm_folder(sweep) / f"prepare-{key}.id"
                known = {} if self.dry_run else jobs_named(prepare_name(key), ended=True)
                earlier = known.get(read_file(kept).decode().strip()) if kept.exists() else None
                if earlier is not None and not earlier.is_ending:
                    job = earlier.id
                    print(f"prepare  job {job}: in the queue already")
                else:
                    token = new_token()
                    command = prepare_command(sweep, run, key, cluster, token)
                    job = self._submit(command, cluster, token, known=list(known))
                    self._own.append(job)
                    if not self.dry_run:
                        write_atomically(kept, job)
                    print(f"prepare  job {job}: writes the .beton files")
                self._prepared_by[key] = job
            found.append(self._prepared_by[key])
        return found

    def _time_limit(self, cluster: ClusterConfig, runs: Sequence["PlannedRun"]) -> str | None:
        """That of the longest run, where all were measured and the user gives none."""
        limits = self._price.limits
        names = [planned.run.path.name for planned in runs]
        if self.plan.time_given or cluster.time != FLAT_TIME or not all(name in limits for name in names):
            return cluster.time
        return time_limit(max(limits[name] for name in names))

    def report(self, after: Sequence[str]) -> None:
        """Submits the job that makes the report once the jobs ``after`` have ended, in place of one that waits.

        Raises:
            UserError: sbatch refused it; one that waited before stays.
        """
        cluster, sweep, token = self.plan.runs[0].config.cluster, self.plan.folder, new_token()
        earlier = None if self.dry_run else report_job(sweep)
        command = report_command(sweep, report_arguments(self.plan), cluster, after, token)
        try:
            job = self._submit(command, cluster, token)
        except NotSubmitted as e:
            if e.kind == "full":
                self.full = self.full or e.said
                waits = f"job {earlier.id} makes one of what was queued before" if earlier else "there is none yet"
                print(f"report   not submitted: {e.said}; {waits}")
                return
            keys = "cluster.aux_partition, cluster.aux_extra or cluster.account"
            line = f"{e}; the runs are queued without a report: fix {keys}, launch again"
            raise UserError(line, retryable=e.retryable) from e
        if not self.dry_run:
            keep_report_job(sweep, job, token)
            if earlier is not None and earlier.state == "PENDING" and not cancel([earlier.id]):
                print(f"report   job {earlier.id}: could not be cancelled; scancel {earlier.id}", file=sys.stderr)
        print(f"report   job {job}: when all have ended")

    def _submit(self, command: list[str], cluster: ClusterConfig, token: str, known: Sequence[str] = ()) -> str:
        if self.dry_run:
            self.commands.append(command)
            return f"JOB{len(self.commands)}"
        sweep = self.plan.folder
        file = job_file(sweep, token)
        publish = str(sweep) if publishes(self.plan) else ""
        write_job_file(file, cluster, os.environ, {"ADAREM_SWEEP": str(sweep), "ADAREM_PUBLISH": publish})
        try:
            return submit(command, environment(cluster), known=known)
        except NotSubmitted as e:
            if e.kind != "unsure":
                file.unlink(missing_ok=True)
            raise

    def undo(self) -> None:
        """Takes back what a launch that failed has submitted, so that nothing of it is left half done."""
        self._take_back([*self._own, *self._arrays])

    def drop_needless(self) -> None:
        """Takes back the jobs that prepare data for arrays that were not taken."""
        self._take_back([job for job in self._own if job not in self._needed])

    def _take_back(self, jobs: Sequence[str]) -> None:
        if jobs and not self.dry_run and not cancel(jobs):
            print(f"still in the queue: scancel {' '.join(jobs)}", file=sys.stderr)
