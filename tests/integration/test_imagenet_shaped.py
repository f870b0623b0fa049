"""The complete path on a tree of ImageNet's shape: 1,000 classes, odd files among them, prepare, train, report."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.run.directory import RunDir
from tests.support.imagenet_tree import make_imagenet_tree


@pytest.mark.slow
def test_a_thousand_classes_from_tree_to_table(tmp_path: Path, adarem_command: Callable) -> None:
    root = tmp_path / "image net"
    make_imagenet_tree(root, classes=1000, train_per_class=2, val_per_class=1, seed=0)
    overrides = (
        "grid=table2",
        "data=imagenet",
        f'data.root="{root}"',
        "data.workers=1",
        "scale=smoke",
        "scale.epochs=1",
        "scale.global_batch_size=250",
        "cluster=local",
        "cluster.ranks_per_node=1",
        "model=shufflenet_v2_0.5",
        "optimizer=adarem",
        "data.train_crop=64",
        "data.eval_resize=72",
        "data.eval_crop=64",
        f'runs_dir="{tmp_path / "runs"}"',
        f'results_dir="{tmp_path / "results"}"',
        "wandb.mode=disabled",
    )
    done = adarem_command("launch", *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (RunDir(p.parent) for p in (tmp_path / "runs").rglob("config.yaml"))
    result = run.result()
    assert result["status"] == "done" and result["steps"] == 8
    assert result["fingerprint"]["train"]["num_images"] == 2000
    assert result["fingerprint"]["val"]["num_images"] == 1000
    assert len(run.correct()["top1"]) == 1000 and result["evaluation"]["images"] == 1000
    prepared = json.loads((root / "ffcv" / "val.beton.json").read_text())
    assert prepared["num_images"] == 1000 and len(prepared["classes"]) == 1000
    # ImageNet's label on a tree that is not ImageNet: never a reproduction
    table = (tmp_path / "results" / run.path.parent.name / "table.md").read_text()
    assert "REHEARSAL" in table.splitlines()[0]
    # a second call does no finished work again
    again = adarem_command("launch", *overrides)
    assert again.returncode == 0 and "finished before" in again.stdout
    assert len(run.attempts()) == 1
