"""sbatch lines that test_submit.py does not see."""

from dataclasses import replace
from pathlib import Path

import pytest

from adarem.launch.slurm.commands import array_command, job_name, prepare_command, report_command
from adarem.plan.plan import Plan
from adarem.run.config import ClusterConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError


@pytest.fixture
def cluster(composed: Plan) -> ClusterConfig:
    return replace(composed.runs[0].config.cluster, name="slurm")


def test_a_name_of_a_job_has_no_character_that_slurm_expands() -> None:
    assert job_name(Path("runs/my sweep%j,2"), "report") == "my_sweep_j_2-report"


def test_options_that_are_not_set_are_left_to_the_site(cluster: ClusterConfig, tmp_path: Path) -> None:
    bare = replace(cluster, partition=None, account=None, time=None, extra=(), max_parallel=0)
    options = {word.split("=")[0] for word in array_command(tmp_path, "token", 3, bare, None)}
    assert not options & {"--partition", "--account", "--time", "--dependency", "--kill-on-invalid-dep"}


def test_a_report_without_runs_to_wait_for_has_no_dependency(cluster: ClusterConfig, tmp_path: Path) -> None:
    assert not any("--dependency" in word for word in report_command(tmp_path, ["grid=table2"], cluster))
    assert "--dependency=afterany:7:8" in report_command(tmp_path, [], cluster, ["7", "8"])


def test_data_sets_are_written_one_job_at_a_time_each(cluster: ClusterConfig, tmp_path: Path) -> None:
    command = prepare_command(tmp_path, RunDir(tmp_path / "a"), "01234567", cluster)
    assert {"--job-name=adarem-prepare-01234567", "--dependency=singleton"} <= set(command)


def test_logs_cannot_go_to_a_path_with_a_backslash(cluster: ClusterConfig) -> None:
    with pytest.raises(UserError, match="cannot write logs to a path with a backslash; give another runs_dir"):
        report_command(Path("runs\\here/table2"), [], cluster)
