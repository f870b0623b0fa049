"""A comma in where runs are started is no axis of a grid."""

import pytest

from adarem.plan.compose import composing
from adarem.plan.grid import spec_of
from adarem.plan.plan import make_plan
from adarem.run.errors import UserError

WORDS = ["grid=table2", "data=digits", "scale=smoke", "optimizer=sgdm", "cluster=slurm"]


@pytest.mark.parametrize(
    ("words", "partition", "aux"),
    [
        (["cluster.partition=gpu,cpu"], "gpu,cpu", None),
        (["cluster.partition=gpu-a,gpu_b,c.1", "cluster.aux_partition=short,long"], "gpu-a,gpu_b,c.1", "short,long"),
        (["cluster.partition='gpu,cpu'"], "gpu,cpu", None),
        (["cluster.partition=1,2"], "1,2", None),
        (["+grid.settings=['cluster.partition=a,b']"], "a,b", None),
        (["++cluster.partition=gpu,cpu", "optimizer=sgdm,adam"], "gpu,cpu", None),
    ],
)
def test_partitions_are_slurms_either_or(words: list[str], partition: str, aux: str | None) -> None:
    given = {w.split("=")[0] for w in words}
    plan = make_plan([w for w in WORDS if w.split("=")[0] not in given] + words)
    assert {p.config.cluster.partition for p in plan.runs} == {partition}
    assert plan.runs[0].config.cluster.aux_partition == aux
    assert len(plan.runs) == (2 if "optimizer" in given else 1) and not any("gpu" in n for n in plan.spec.axes)
    assert all("partition" not in p.config.run_name for p in plan.runs)


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("cluster.nodes=1,2", "cluster.nodes=1,2: one value at a time, since cluster.* is no axis of a grid"),
        ("cluster.time=1:00,2:00", "one value at a time"),
        ("cluster.account=a,b", "one value at a time"),
        ("cluster.extra=a,b", r"one value at a time, .*; of several write a list, cluster.extra=\[...\]"),
        ("cluster.partition=choice(a,b)", "one value at a time"),
        ("cluster.max_parallel=range(1,3)", "one value at a time"),
        ("wandb.mode=online,offline", "one value at a time, since wandb.* is no axis"),
        ("+grid.overrides={wide: {cluster.nodes: 4}}", "grid.overrides.wide: says where runs are"),
    ],
)
def test_nothing_of_a_cluster_is_an_axis(word: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        make_plan([*WORDS, word])


@pytest.mark.parametrize("key", ["cluster.nodes", "cluster.partition", "wandb.mode"])
def test_a_grids_file_has_no_such_axis(key: str) -> None:
    axes = {"model": ["resnet18"], "optimizer": ["sgdm"], key: ["1", "2"]}
    grid = {"name": "mine", "title": "Mine", "axes": axes, "metrics": ["top1"], "seeds": [0]}
    with composing(), pytest.raises(UserError, match=f"grid.axes.{key}: says where runs are"):
        spec_of(grid)
