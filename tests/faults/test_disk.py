"""Full and read-only disks, clocks that jump, evaluations that are cut: one line, nothing lost, the same bits."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts.torture import differences, state_of

from adarem.run import directory as rundir
from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.train import trainer
from adarem.train.tasks.image import ImageTask
from tests.support.small_disk import Disk
from tests.support.warm import Forked, adarem

Train = Callable[[Path], tuple[int, str]]


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> dict:
    """What the run of these tests comes to when nothing happens to it."""
    from adarem.train import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "SignalListener", type("NeverStop", (), {"signal": None}))
        run = plan(tmp_path_factory.mktemp("complete"), digits_root)
        assert train.train(run.path) == exitcodes.OK
    return state_of(run)


def plan(folder: Path, digits_root: Path) -> RunDir:
    from adarem.plan.plan import make_plan

    made = make_plan([
        "data=digits", f'data.root="{digits_root}"', f'runs_dir="{folder}"', "wandb.mode=disabled", "scale=smoke",
        "scale.global_batch_size=288", "model=shufflenet_v2_0.5", "optimizer=adarem_s", "cluster.ranks_per_node=1",
    ])  # fmt: skip
    made.write()
    return made.runs[0].run


def one_line(err: str) -> str:
    assert err.count("\n") == 1 and "Traceback" not in err, err
    return err.strip()


def test_a_disk_that_fills_up_during_a_checkpoint(
    disk: Disk, digits_root: Path, complete: dict, train_here: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the second checkpoint fits."""
    run = plan(disk.path / "runs", digits_root)
    record = trainer.Trainer._record

    def fill_before_the_last_checkpoint(self, epoch: int, split: str, metrics: dict[str, float]) -> None:
        record(self, epoch, split, metrics)
        if (epoch, split) == (1, "val"):
            self._checkpoints.wait()
            disk.fill(leave=600_000)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_record", fill_before_the_last_checkpoint)
        code, err = train_here(run.path)
    assert code == exitcodes.USER_ERROR
    line = one_line(err)
    assert line.startswith(f"adarem train: {run.checkpoints}/step-000000008-")
    assert line.endswith("cannot be written (No space left on device); fix that and start again")
    assert [p.name[:14] for p in run.checkpoints.iterdir()] == ["step-000000004"]  # no half of the other
    assert run.status() == "failed"
    assert "No space left" in run.attempts()[-1]["detail"]
    disk.empty()
    assert train_here(run.path)[0] == exitcodes.OK
    assert differences(complete, state_of(run)) == []


def test_a_disk_that_is_full_for_the_metrics(
    disk: Disk, digits_root: Path, complete: dict, train_here: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = plan(disk.path / "runs", digits_root)
    evaluate = ImageTask.evaluate

    def fill_first(self, model):
        run.metrics_file.write_bytes(run.metrics_file.read_bytes().ljust(4090))  # 6 bytes of the page are left
        disk.fill()
        return evaluate(self, model)

    with monkeypatch.context() as patch:
        patch.setattr(ImageTask, "evaluate", fill_first)
        code, err = train_here(run.path)
    assert code == exitcodes.USER_ERROR
    assert "metrics.jsonl: cannot be written (No space left on device)" in one_line(err)
    assert run.status() in ("failed", "interrupted")
    disk.empty()
    assert train_here(run.path)[0] == exitcodes.OK
    assert differences(complete, state_of(run)) == []
    assert run.damaged_lines() == 1


@pytest.mark.parametrize("leaves", [(), ("progress.json", "lock")])
def test_a_run_that_is_removed_while_it_trains(
    leaves: tuple[str, ...], tmp_path: Path, digits_root: Path, train_here: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends, nothing is made in its place, and its sweep can be planned again; some of it may have come back while
    it was being removed."""
    run = plan(tmp_path / "runs", digits_root)
    evaluate = ImageTask.evaluate

    def remove(self, model):
        shutil.rmtree(run.path)
        for name in leaves:
            run.path.mkdir(exist_ok=True)
            (run.path / name).touch()
        return evaluate(self, model)

    with monkeypatch.context() as patch:
        patch.setattr(ImageTask, "evaluate", remove)
        code, err = train_here(run.path)
    assert code == exitcodes.USER_ERROR
    assert str(run.path) in one_line(err)
    assert leaves or not run.path.exists()
    assert plan(tmp_path / "runs", digits_root).config() is not None and run.status() in ("planned", "failed")


def test_a_read_only_run(disk: Disk, digits_root: Path, train_here: Train) -> None:
    run = plan(disk.path / "runs", digits_root)
    before = sorted(run.path.rglob("*"))
    disk.remount("ro")
    code, err = train_here(run.path)
    assert code == exitcodes.USER_ERROR
    assert f"{run.lock_file}: cannot be written (Read-only file system)" in one_line(err)
    assert sorted(run.path.rglob("*")) == before


def test_an_evaluation_cut_in_the_middle(
    tmp_path: Path, digits_root: Path, complete: dict, train_here: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = plan(tmp_path / "runs", digits_root)
    batches = type(ImageTask(run.config(), one_rank()).eval_loader).__iter__

    def cut(self):
        for number, batch in enumerate(batches(self)):
            if number == 1:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr("adarem.data.loaders.EvalLoader.__iter__", cut)
        assert train_here(run.path)[0] == 130
    assert [m["split"] for m in run.metrics()] == ["train"]
    assert train_here(run.path)[0] == exitcodes.OK
    assert differences(complete, state_of(run)) == []


def one_rank():
    import torch

    from adarem.train.distributed.context import RankContext

    return RankContext(0, 1, 0, torch.device("cpu"), ("here",))


def test_a_clock_set_back(
    tmp_path: Path, digits_root: Path, complete: dict, train_here: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a day at each reading, while a run trains and before it is looked at."""
    run = plan(tmp_path / "runs", digits_root)
    now = [time.time()]

    class Clock:
        def __getattr__(self, name: str) -> object:
            return getattr(time, name)

        def time(self) -> float:
            now[0] -= 86_400
            return now[0]

    for module in (rundir, trainer):
        monkeypatch.setattr(module, "time", Clock())
    assert train_here(run.path)[0] == exitcodes.OK
    assert run.status() == "done"
    assert differences(complete, state_of(run)) == []
    assert all(m["seconds_train"] > 0 and m["images_per_s"] > 0 for m in run.metrics() if m["split"] == "train")
    assert run.result()["seconds"] > 0
    # A run of another host that died before the clock was set back is not taken for one that runs.
    run.result_file.unlink()
    run.start_attempt({"host": "elsewhere"})
    run.progress_file.write_text(f'{{"time": {now[0] + 1e7}}}')
    assert run.status() == "failed"


def test_two_starts_at_once_of_one_run(tmp_path: Path, digits_root: Path) -> None:
    run = plan(tmp_path / "runs", digits_root)
    both = [Forked(adarem, "train", str(run.path)) for _ in range(2)]
    outputs = ["".join(process.communicate(120)) for process in both]
    codes = sorted(process.returncode or 0 for process in both)
    assert run.status() == "done" and len(run.attempts()) == 1
    if codes != [exitcodes.OK, exitcodes.OK]:  # the second came when the first was done
        assert codes == [exitcodes.OK, exitcodes.USER_ERROR]
        assert any("another process works on it (host" in out for out in outputs)
    assert not any("Traceback" in out for out in outputs)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_get_the_users_umask_and_names_nobody_can_guess(
    mask: int, tmp_path: Path, digits_root: Path, train_here: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = []
    monkeypatch.setattr(os, "replace", lambda a, b, replace=os.replace: (halves.append(str(a)), replace(a, b)))
    before = os.umask(mask)
    try:
        run = plan(tmp_path / "runs", digits_root)
        assert train_here(run.path)[0] == exitcodes.OK
    finally:
        os.umask(before)
    files = [p for p in run.path.rglob("*") if p.is_file()]
    assert len(files) > 8
    assert {p.stat().st_mode & 0o777 for p in files} == {0o666 & ~mask}
    assert {p.stat().st_mode & 0o777 for p in (run.path, run.checkpoints)} == {0o777 & ~mask}
    assert {len(h.split(".")[-2]) for h in halves} == {16} and len(set(halves)) == len(halves)
    assert all(Path(h).is_relative_to(tmp_path / "runs") for h in halves)
