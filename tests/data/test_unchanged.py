"""A finished run counts for the data that it read, and for no others that lie in the same place."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.data.prepare import prepare
from adarem.data.unchanged import DataNow, check_unchanged
from adarem.launch.launch import launch
from adarem.plan.plan import Plan, make_plan
from adarem.run import exitcodes
from adarem.run.config import DataConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from tests.support.own_images import make_folder

MOVED = ("data.train_crop=32", "data.eval_resize=36", "data.eval_crop=32", "data.workers=1", "data.backend=folder")


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """A folder that no plan has counted: its data set has a file of its own settings, as ImageNet has."""
    for split, n in (("train", 8), ("val", 4)):
        make_folder(tmp_path / "birds" / split, n, n)
    return tmp_path / "birds"


def plan(root: Path, *more: str) -> Plan:
    places = (f"data.root={root}", f"runs_dir={root.parent / 'runs'}", f"results_dir={root.parent / 'results'}")
    own = ("data.num_classes=2", "data.name=birds", "scale=smoke", "scale.global_batch_size=4", "cluster=local")
    given = {o.split("=")[0] for o in more}
    defaults = ("data=imagenet", "optimizer=sgdm", "wandb.mode=disabled", *own, *MOVED, *places)
    return make_plan([*(o for o in defaults if o.split("=")[0] not in given), *more])


def finish(planned: Plan, *which: int) -> list[RunDir]:
    """Writes the results of some runs, as training does."""
    data = planned.runs[0].config.data
    assert isinstance(data, DataConfig)
    made = prepare(data, workers=1, progress=False)
    planned.write()
    runs = [planned.runs[i].run for i in which]
    for run in runs:
        run.write_result({"status": "done", "epochs": 2, "top1": 50.0, "fingerprint": made})
    return runs


def prepare_again(planned: Plan) -> None:
    data = planned.runs[0].config.data
    assert isinstance(data, DataConfig)
    prepare(data, workers=1, progress=False)


def replan(birds: Path, *more: str) -> None:
    plan(birds, *more).write()


def test_other_images_in_the_same_place(birds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = finish(plan(birds), 0)
    replan(birds)  # nothing changed: finished before
    frozen = run.config_file.read_text()
    make_folder(birds / "train", 1, first=90)
    for act in (lambda: replan(birds), lambda: launch(plan(birds)), lambda: launch(plan(birds), dry_run=True)):
        with pytest.raises(UserError) as e:
            act()
        said = str(e.value)
        assert said.startswith(
            f"{run.path}: finished, and data.root={birds} holds other images (train: names and sizes"
        )
        assert "put the old data back, or remove that run to train it again, or give another runs_dir" in said
        assert "\n" not in said
    assert "finished before" not in capsys.readouterr().out and run.config_file.read_text() == frozen
    # what it says to do helps
    (birds / "train" / "class0" / "img090.png").unlink()
    replan(birds)
    make_folder(birds / "train", 1, first=90)
    replan(birds, f"runs_dir={birds.parent / 'others'}")
    shutil.rmtree(run.path)
    replan(birds)


def test_data_that_were_prepared_again(birds: Path) -> None:
    """Names and sizes are alike, bytes are not."""
    (run,) = finish(plan(birds), 0)
    a, b = (birds / "val" / f"class{c}" / "img000.png" for c in (0, 1))
    one, other = a.read_bytes(), b.read_bytes()
    a.write_bytes(other)
    b.write_bytes(one)
    for split in ("train", "val"):
        (birds / "ffcv" / f"{split}.folder.json").unlink()
        (birds / "ffcv" / f"{split}.folder.files").unlink()
    prepare_again(plan(birds))
    with pytest.raises(UserError, match=r"holds other data \(val: content \w{12} then, \w{12} now\); put the old"):
        check_unchanged([(run, plan(birds).runs[0].config)])


def test_another_folder(birds: Path) -> None:
    """A copy is the same; another set is not, prepared or not. The finished run's config keeps its place."""
    (run,) = finish(plan(birds), 0)
    copy = birds.parent / "copy" / "birds"
    shutil.copytree(birds, copy, ignore=shutil.ignore_patterns("ffcv"))
    given = [f"runs_dir={birds.parent / 'runs'}"]
    replan(copy, *given)
    assert run.config().data.root == str(birds)
    old = birds.stat().st_mtime - 1000
    (copy / "val" / "class0" / "img000.png").unlink()
    for folder in copy.rglob("*"):
        os.utime(folder, (old, old))
    for _ in range(2):
        with pytest.raises(UserError, match=rf"data.root={copy} holds other images \(val"):
            replan(copy, *given)
    prepare_again(plan(copy, *given))
    with pytest.raises(UserError, match=rf"data.root={copy} holds other data \(val"):
        replan(copy, *given)
    shutil.rmtree(copy)
    replan(copy, *given)  # nothing is there to compare


def test_the_source_is_listed_only_where_it_may_have_changed(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have a million files, and a launch is repeated often."""
    (run,) = finish(plan(birds), 0)
    data, result = plan(birds).runs[0].config.data, run.result()
    assert result is not None

    def refuse(data: DataConfig) -> None:
        raise AssertionError("listed")

    monkeypatch.setattr("adarem.data.unchanged.open_source", refuse)
    assert DataNow(data).differs_from(result) is None
    with pytest.raises(AssertionError, match="listed"):
        DataNow(data).differs_from(result, moved=True)


def test_results_without_a_fingerprint_are_passed_over(birds: Path) -> None:
    (run,) = finish(plan(birds), 0)
    run.write_result({"status": "done", "epochs": 2, "top1": 50.0})
    make_folder(birds / "train", 1, first=90)
    replan(birds)


def test_a_run_reads_what_the_finished_runs_of_its_sweep_read(
    tiny_run: Callable[..., Path], run_here: Callable[..., int], tmp_path: Path
) -> None:
    """Images that are prepared between two runs: neither is the second one trained, nor the first one taken as done."""
    root = make_folder(tmp_path / "birds", 12, 12)
    settings = ("data=imagenet", f"data.root={root}", f"data.beton_dir={tmp_path / 'made'}", "data.val_share=0.25")
    settings += ("data.name=birds", "data.num_classes=2", "scale.global_batch_size=4", "scale.epochs=1", *MOVED)
    settings += ("model=shufflenet_v2_0.5", "cluster=local", "cluster.ranks_per_node=1")
    first, second = (RunDir(tiny_run(*settings, f"optimizer={o}")) for o in ("sgdm", "adam"))
    data = first.config().data
    assert isinstance(data, DataConfig)
    prepare(data, workers=1, progress=False)
    assert run_here(first.path) == exitcodes.OK and run_here(first.path) == exitcodes.OK
    make_folder(root, 1, first=90)
    prepare(data, workers=1, progress=False)
    with pytest.raises(UserError, match=f"would read other data than {first.path.name} did .*; put the old data back"):
        run_here(second.path)
    with pytest.raises(UserError, match=f"{first.path}: finished, and data.root={root} holds other data"):
        run_here(first.path)
    assert len(first.attempts()) == 1 and first.status() == "done"
    (root / "class0" / "img090.png").unlink()
    prepare(data, workers=1, progress=False)
    assert run_here(second.path) == exitcodes.OK
