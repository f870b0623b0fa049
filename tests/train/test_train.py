"""Training: exact under interruption, equal across ranks, honest about divergence."""

import itertools
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adarem.plan.plan import make_plan
from adarem.run import exitcodes
from adarem.run.catalog import OPTIMIZERS
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.train import metrics as meters
from adarem.train.checkpoint import find_newest, load
from adarem.train.distributed.context import RankContext
from adarem.train.models.library import build_model
from adarem.train.tasks.base import Batch
from adarem.train.tasks.image import ImageTask
from adarem.train.trainer import Trainer
from tests.support.networks import write_networks
from tests.support.optimizers import write_module
from tests.support.training import StopAtStep, assert_same_bits, figures, final_state
from tests.support.warm import Forked, adarem, train_on_ranks


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_interrupted_anywhere_and_continued_ends_with_the_same_bits(
    optimizer: str, tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    complete = RunDir(tiny_run(f"optimizer={optimizer}", folder="complete"))
    assert run_here(complete.path) == exitcodes.OK
    broken = RunDir(tiny_run(f"optimizer={optimizer}", folder="broken"))
    # two epochs of four steps: in the first epoch, between the epochs, in the second epoch
    for looks in (2, 2, 3):
        assert run_here(broken.path, StopAtStep(looks)) == exitcodes.REQUEUE
        assert broken.status() == "interrupted"
    assert run_here(broken.path) == exitcodes.OK
    assert_same_bits(final_state(complete), final_state(broken))
    assert figures(complete) == figures(broken)
    for bits in ("top1", "top5"):
        assert np.array_equal(complete.correct()[bits], broken.correct()[bits])
    assert [a["why"] for a in broken.attempts()] == ["interrupted"] * 3 + ["done"]
    results = complete.result(), broken.result()
    assert {r["top1"] for r in results} == {100 * float(complete.correct()["top1"].mean())}


@pytest.mark.slow
def test_a_run_that_pauses_at_rungs_ends_with_the_bits_of_one_that_does_not(
    digits_root: Path, tmp_path: Path, run_here: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two trials one goes on at both rungs and is interrupted on the way; nothing but its attempts shows that."""

    def search(folder: str, halving: str) -> list[RunDir]:
        places = (f'data.root="{digits_root}"', f'runs_dir="{tmp_path / folder}"', "wandb.mode=disabled")
        what = ("grid=table2_search", "optimizer=adarem", "model=shufflenet_v2_0.5", "data=digits", "scale.epochs=3")
        more = (
            "scale.global_batch_size=288",
            "cluster.ranks_per_node=1",
            "grid.draw.trials=2",
            f"grid.halving={halving}",
        )
        plan = make_plan([*what, *places, *more])
        plan.write()
        return [planned.run for planned in plan.runs]

    runs = search("halved", "{rungs: [1, 2], keep: 1/2}")
    for run in runs:
        assert run_here(run.path) == exitcodes.OK and run.status() == "paused"
    assert run_here(runs[0].path) == exitcodes.OK
    reached = {run.epochs(): run for run in runs}
    if len(reached) == 1:  # the other one goes on
        assert run_here(runs[1].path) == exitcodes.OK
        reached = {run.epochs(): run for run in runs}
    stopped, best = reached[1], reached[2]
    assert run_here(stopped.path) == exitcodes.OK and "stopped at rung 1" in capsys.readouterr().out
    assert run_here(best.path, StopAtStep(2)) == exitcodes.REQUEUE
    assert run_here(best.path) == exitcodes.OK
    assert [a["why"] for a in best.attempts()] == ["paused", "paused", "interrupted", "done"]
    assert [a["why"] for a in stopped.attempts()] == ["paused"]

    complete = next(run for run in search("complete", "null") if run.path.name == best.path.name)
    assert run_here(complete.path) == exitcodes.OK
    assert complete.config_file.read_text().replace("complete", "halved") == best.config_file.read_text()
    assert_same_bits(final_state(complete), final_state(best))
    assert figures(complete) == figures(best)
    assert all(complete.result()[k] == best.result()[k] for k in ("holdout_top1", "config_hash", "best_epoch"))


@pytest.mark.parametrize("optimizer", ["torch:NAdam", "own_to_train:make"])
def test_imported_optimizers_resume_and_keep_the_rates_of_their_groups(
    optimizer: str,
    tiny_run: Callable[..., Path],
    run_here: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_module(tmp_path, "own_to_train")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # for plan's child process
    monkeypatch.syspath_prepend(str(tmp_path))  # for this one
    settings = (f"optimizer={optimizer}", "optimizer.lr=0.01")
    whole, broken = (RunDir(tiny_run(*settings, folder=folder)) for folder in ("whole", "broken"))
    assert run_here(whole.path) == exitcodes.OK
    assert run_here(broken.path, StopAtStep(5)) == exitcodes.REQUEUE
    assert run_here(broken.path) == exitcodes.OK
    state = final_state(whole)
    assert_same_bits(state, final_state(broken))
    first, *others = (group["lr"] for group in state["optimizer"]["param_groups"])
    assert 0 < first < 0.01 and all(lr == pytest.approx(0.1 * first) for lr in others)  # the factory's share
    assert [a["optimizer"]["name"] for a in broken.attempts()] == [optimizer, optimizer]


def test_a_network_of_a_users_own_trains_resumes_and_is_recorded(
    tiny_run: Callable[..., Path], run_here: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_networks(tmp_path, "nets_to_train")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ("model=nets_to_train:make_network", "model.width=4", "optimizer=adarem_s")
    whole, broken = (RunDir(tiny_run(*own, folder=folder)) for folder in ("whole", "broken"))
    assert run_here(whole.path) == exitcodes.OK
    assert run_here(broken.path, StopAtStep(5)) == exitcodes.REQUEUE
    assert run_here(broken.path) == exitcodes.OK
    state = final_state(whole)
    assert_same_bits(state, final_state(broken))
    assert state["model"]["head.weight"].shape == (10, 4)
    assert [a["network"]["file"] for a in broken.attempts()] == ["nets_to_train.py"] * 2


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        ("ScheduleFreeSGD", 1),
        pytest.param("ScheduleFreeSGD", 2, marks=pytest.mark.slow),
        pytest.param("ScheduleFreeAdamW", 1, marks=pytest.mark.slow),
    ],
)
def test_one_that_is_evaluated_at_its_average_resumes_with_the_same_bits(
    name: str, ranks: int, tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    """Interrupted in both epochs; the checkpoints are of the training point, the last one holds the average too."""
    settings = (f"optimizer=pytorch_optimizer:{name}", "optimizer.lr=0.1", f"cluster.ranks_per_node={ranks}")
    whole, broken = (RunDir(tiny_run(*settings, folder=folder)) for folder in ("whole", "broken"))

    def train(run: RunDir, looks: int | None = None) -> int:
        if ranks == 1:
            return run_here(run.path, None if looks is None else StopAtStep(looks))
        return train_on_ranks(ranks, run.path, looks).returncode

    assert train(whole) == exitcodes.OK
    for looks in (2, 3):  # one step later on several ranks
        train(broken, looks)
        assert broken.status() == "interrupted" and "evaluated" not in final_state(broken)
    assert train(broken) == exitcodes.OK
    state = final_state(whole)
    assert_same_bits(state, final_state(broken))
    assert figures(whole) == figures(broken)
    assert whole.config().schedule.name == "constant" and {m["lr"] for m in whole.metrics() if "lr" in m} == {0.025}
    average = state["evaluated"]
    assert average.keys() == state["model"].keys()
    assert not any(torch.equal(average[k], v) for k, v in state["model"].items() if k.endswith("conv.0.weight"))
    assert whole.result()["evaluation"]["batch_norm_batches"] == 4
    # What the checkpoint keeps is what the result is of.
    task = ImageTask(whole.config(), RankContext(0, 1, 0, torch.device("cpu"), ("here",)))
    model = task.build_model().to(memory_format=torch.channels_last)
    model.load_state_dict(average)
    assert task.evaluate(model).metrics["top1"] == whole.result()["top1"]


def test_a_run_starts_from_weights_and_resumes_without_their_file(
    tiny_run: Callable[..., Path], run_here: Callable[..., int], tmp_path: Path
) -> None:
    """A file that changed after the plan is refused at the start; a checkpoint needs it no more."""
    file = tmp_path / "weights.pt"
    state = build_model("shufflenet_v2_0.5", 10, 7).state_dict()
    torch.save(state, file)
    run = RunDir(tiny_run(f'model.init="{file}"', "optimizer.lr=1e-9", "optimizer.weight_decay=0"))
    content = file.read_bytes()
    file.write_bytes(content + b" ")
    with pytest.raises(UserError, match="weights.pt: changed since this run was planned; put the old file back"):
        run_here(run.path)
    file.write_bytes(content)
    assert run_here(run.path, StopAtStep(3)) == exitcodes.REQUEUE
    assert f"weights of {file} (" in (run.path / "log.txt").read_text()
    file.unlink()
    assert run_here(run.path) == exitcodes.OK
    for key, value in final_state(run)["model"].items():
        if key.endswith("weight"):
            assert torch.allclose(value, state[key], atol=1e-5), key


def test_a_recipes_settings_reach_the_steps(
    tiny_run: Callable[..., Path], run_here: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The complete gradient is clipped, the cosine ends at min_lr in every group alike, and norms do not decay."""
    write_module(tmp_path, "own_to_train")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    seen: list[tuple[list[float], float]] = []
    stepped = Trainer._step

    def step(trainer: Trainer, network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        totals = stepped(trainer, network, batch)
        norm = torch.stack([p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]).norm()
        seen.append(([g["lr"] for g in trainer.optimizer.param_groups], norm.item()))
        return totals

    monkeypatch.setattr(Trainer, "_step", step)
    recipe = ("train.clip_grad_norm=0.01", "schedule.min_lr=0.004")
    assert run_here(tiny_run("optimizer=own_to_train:make", "optimizer.lr=0.01", *recipe)) == exitcodes.OK
    rates, norms = zip(*seen, strict=True)
    assert norms == pytest.approx([0.01] * 8, rel=1e-3)
    first, last = np.array(rates[0]), np.array(rates[7])
    assert first[1] == pytest.approx(0.1 * first[0])  # the factory's share
    assert last / first == pytest.approx([0.4 + 0.6 * 0.5 * (1 + np.cos(np.pi * 7 / 8))] * 2)
    seen.clear()
    plain = RunDir(tiny_run("optimizer=sgdm", "optimizer.no_decay=[norm]", folder="plain"))
    assert run_here(plain.path) == exitcodes.OK
    assert max(norm for _, norm in seen) > 0.1
    decays = [group["weight_decay"] for group in final_state(plain)["optimizer"]["param_groups"]]
    assert sorted(decays) == [0.0, 1e-4]
    assert plain.config().optimizer.no_decay == ("norm",) and "clip_grad_norm" not in plain.config_file.read_text()


@pytest.mark.slow
def test_three_ranks_interrupted_in_an_epoch_end_with_the_same_bits(tiny_run: Callable[..., Path]) -> None:
    """With more than two ranks a sum depends on its order, which DDP changes after the first step of a start."""
    three = ("optimizer=adarem", "cluster.ranks_per_node=3", "train.oscillation=true", "train.watched_steps=2")
    complete, broken = (RunDir(tiny_run(*three, folder=name)) for name in ("complete", "broken"))
    done = train_on_ranks(3, complete.path)
    assert done.returncode == exitcodes.OK, done.stderr
    for _ in range(2):  # after step 2, in the first epoch, and after step 5, in the second
        train_on_ranks(3, broken.path, 1)
        assert broken.status() == "interrupted"
    done = train_on_ranks(3, broken.path)
    assert done.returncode == exitcodes.OK, done.stderr
    assert_same_bits(final_state(complete), final_state(broken))
    assert figures(complete) == figures(broken)
    # One rank tracks for all: a line a window, every parameter counted once.
    windows = complete.oscillation()
    assert (
        windows == broken.oscillation() and len(complete.oscillation_file.read_text().splitlines()) == len(windows) == 2
    )
    assert {w["parameters"] for w in windows} == {complete.result()["parameters"]} and windows[0]["q_mean"] >= 1
    assert sum(len(w["trajectories"]) for w in windows) == 3 * 4


def test_an_interrupted_epochs_record_is_of_all_its_parts(
    tiny_run: Callable[..., Path], run_here: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that advances by a second at each reading: three times a step, one of them while it waits for data."""
    seconds = itertools.count()
    monkeypatch.setattr(meters, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))
    monkeypatch.setattr(meters, "_SHOW_EVERY_SECONDS", float("inf"))  # progress reads the clock too
    run = RunDir(tiny_run("train.checkpoint_every=2", "train.eval_every=2"))
    assert run_here(run.path, StopAtStep(3)) == exitcodes.REQUEUE
    assert run_here(run.path) == exitcodes.OK
    broken, complete = [m for m in run.metrics() if m["split"] == "train"]  # the first and the second epoch
    assert complete["seconds_train"] == 13 and broken["seconds_train"] == 14  # read once more, when it was left
    for m in broken, complete:
        assert m["images"] == 4 * 288  # the second epoch's none of the first
        assert m["data_wait"] * m["seconds_train"] == pytest.approx(4)
        assert m["images_per_s"] * (m["seconds_train"] + 1) == pytest.approx(4 * 288)
        assert m["world_size"] == 1


def test_metrics_are_what_the_schedule_and_the_data_say(
    tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    run = RunDir(tiny_run("optimizer=adarem"))
    assert run.status() == "planned"
    assert run_here(run.path) == exitcodes.OK
    assert run.status() == "done"
    rows = run.metrics()
    assert [(m["epoch"], m["split"], m["step"]) for m in rows] == [
        (1, "train", 4),
        (1, "val", 4),
        (2, "train", 8),
        (2, "val", 8),
    ]
    assert {m["images"] for m in rows if m["split"] == "val"} == {360}
    assert {m["images"] for m in rows if m["split"] == "train"} == {4 * 288}
    # cosine over 8 steps from 0.4 * 0.25, at the last step of each epoch
    assert [m["lr"] for m in rows if m["split"] == "train"] == pytest.approx(
        [0.05 * (1 + np.cos(np.pi * t / 8)) for t in (3, 7)]
    )
    result = run.result()
    assert result["status"] == "done" and result["epochs"] == 2 and result["steps"] == 8
    assert result["evaluation"] == {
        "resize": 36,
        "crop": 32,
        "images": 360,
        "stored_max_side": 64,
        "backend": "ffcv",
    }
    assert result["fingerprint"]["train"]["num_images"] == 1437
    attempt = run.attempts()[0]
    assert attempt["versions"]["torch"] == torch.__version__.split("+")[0]
    assert len(attempt["commit"]) == 40 and attempt["world_size"] == 1 and attempt["why"] == "done"
    # a second call does nothing
    before = run.metrics_file.read_bytes()
    assert run_here(run.path) == exitcodes.OK
    assert run.metrics_file.read_bytes() == before and len(run.attempts()) == 1


def test_evaluation_is_the_same_at_any_world_size_and_ranks_share_one_run(tiny_run: Callable[..., Path]) -> None:
    """Three real ranks: 360 images do not divide into 3 x 96, each is counted once, and rank 0 alone writes."""
    run = RunDir(tiny_run("cluster.ranks_per_node=3", "optimizer=adam"))
    done = train_on_ranks(3, run.path)
    assert done.returncode == 0, done.stderr
    assert run.status() == "done" and len(run.attempts()) == 1 and run.attempts()[0]["world_size"] == 3
    assert {m["images"] for m in run.metrics() if m["split"] == "val"} == {360}
    assert len(run.correct()["top1"]) == 360
    # The same weights, evaluated by one process on its own, give the same images right.
    from adarem.train.distributed.context import RankContext
    from adarem.train.models.library import build_model
    from adarem.train.tasks.image import ImageTask

    config = run.config()
    task = ImageTask(config, RankContext(0, 1, 0, torch.device("cpu"), ("here",)))
    model = build_model(config.model.name, 10, 0).to(memory_format=torch.channels_last)
    model.load_state_dict(final_state(run)["model"])
    alone = task.evaluate(model)
    assert np.array_equal(alone.correct["top1"], run.correct()["top1"])
    assert alone.loss == pytest.approx(run.result()["val_loss"], rel=1e-6)


def test_two_ranks_take_the_step_of_one(tiny_run: Callable[..., Path], run_here: Callable[..., int]) -> None:
    """Without BatchNorm, two ranks of half the batch follow one rank: same order, same crops, averaged gradients."""
    model = "model=torchvision:squeezenet1_1"
    common = ("scale.epochs=1", "optimizer=sgd", "optimizer.lr=0.01")
    one = RunDir(tiny_run(model, *common, folder="one"))
    two = RunDir(tiny_run(model, *common, "cluster.ranks_per_node=2", folder="two"))
    # its dropout is the one thing that depends on the rank
    patch = "import torch; torch.nn.Dropout.forward = lambda self, x: x\n"
    site = one.path.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(patch)
    done = train_on_ranks(2, two.path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    alone = train_on_ranks(1, one.path, PYTHONPATH=str(site))
    assert alone.returncode == 0, alone.stderr
    a, b = final_state(one)["model"], final_state(two)["model"]
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=1e-4, atol=1e-6), name
    assert [m["loss"] for m in one.metrics()] == pytest.approx([m["loss"] for m in two.metrics()], rel=1e-4)


def test_divergence_is_a_result_with_its_own_exit_code(
    tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    run = RunDir(tiny_run("optimizer=sgd", "optimizer.lr=1e30"))
    assert run_here(run.path) == exitcodes.DIVERGED
    assert run.status() == "diverged"
    result = run.result()
    assert result["status"] == "diverged" and result["epoch"] == 1 and "not finite in epoch 1" in result["reason"]
    assert run.attempts()[0]["why"] == "diverged"
    assert find_newest(run.checkpoints) == (None, [])
    assert run_here(run.path) == exitcodes.OK  # finished: it is not tried again
    assert len(run.attempts()) == 1


def test_world_size_may_change_on_resume(tiny_run: Callable[..., Path], run_here: Callable[..., int]) -> None:
    run = RunDir(tiny_run("optimizer=adarem", "cluster.ranks_per_node=2"))
    assert run_here(run.path, StopAtStep(2)) == exitcodes.REQUEUE  # one rank
    done = train_on_ranks(2, run.path)  # two ranks continue within the epoch
    assert done.returncode == 0, done.stderr
    assert "going on from step 2 of 8" in done.stdout
    assert run.status() == "done"
    assert {m["images"] for m in run.metrics() if m["split"] == "train"} == {4 * 288}
    assert [a["world_size"] for a in run.attempts()] == [1, 2]


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(
    tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    complete = RunDir(tiny_run(folder="complete"))
    run_here(complete.path)
    run = RunDir(tiny_run(folder="broken"))
    assert run_here(run.path, StopAtStep(6)) == exitcodes.REQUEUE
    newest = find_newest(run.checkpoints)[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    assert run_here(run.path) == exitcodes.OK
    assert "set aside" in run.log_file.read_text()
    assert "going on from step 4 of 8" in run.log_file.read_text()
    assert_same_bits(final_state(complete), final_state(run))


def test_a_checkpoint_of_other_settings_is_refused(tiny_run: Callable[..., Path], run_here: Callable[..., int]) -> None:
    run = RunDir(tiny_run("optimizer=adam"))
    assert run_here(run.path, StopAtStep(5)) == exitcodes.REQUEUE
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("beta1: 0.9", "beta1: 0.8"))
    with pytest.raises(UserError, match=r"checkpoints: made with other settings of optimizer.beta1"):
        run_here(run.path)
    assert run.status() == "failed"
    run.config_file.write_text(text)
    assert run_here(run.path) == exitcodes.OK


def test_changed_data_are_refused_on_resume(
    tmp_path: Path, tiny_run: Callable[..., Path], run_here: Callable[..., int], digits_root: Path
) -> None:
    import shutil

    root = tmp_path / "data"
    shutil.copytree(digits_root, root)
    run = RunDir(tiny_run(f'data.root="{root}"'))
    assert run_here(run.path, StopAtStep(2)) == exitcodes.REQUEUE
    fingerprint = root / "ffcv" / "train.beton.json"
    record = json.loads(fingerprint.read_text())
    fingerprint.write_text(json.dumps(record | {"content_hash": "0" * 64}))
    with pytest.raises(UserError, match="changed since this run began"):
        run_here(run.path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_real_signal_checkpoints_and_says_how_to_go_on(number: signal.Signals, tiny_run: Callable[..., Path]) -> None:
    run = RunDir(tiny_run("scale.epochs=500", "scale=smoke", "train.checkpoint_every=1000"))
    process = Forked(adarem, "train", str(run.path))
    deadline = time.time() + 120
    while not run.metrics() and time.time() < deadline:
        time.sleep(0.1)
    assert run.status() == "running"
    process.send_signal(number)
    out, err = process.communicate(60)
    assert process.returncode == exitcodes.REQUEUE, err
    assert f"interrupted: {number.name} at step" in out and "the same command again goes on from there" in out
    assert run.status() == "interrupted"
    step = load(find_newest(run.checkpoints)[0])["training"]["step"]
    assert f"at step {step}" in run.attempts()[0]["detail"]


def test_a_second_process_on_the_same_run_is_refused(
    tiny_run: Callable[..., Path], adarem_command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run = RunDir(tiny_run())
    with run.lock():
        done = adarem_command("train", str(run.path))
    assert done.returncode == exitcodes.USER_ERROR
    assert "another process works on it (host" in done.stderr and "Traceback" not in done.stderr
    assert run.attempts() == []


def test_folder_backend_trains_too(tiny_run: Callable[..., Path], run_here: Callable[..., int]) -> None:
    run = RunDir(tiny_run("data.backend=folder"))
    assert run_here(run.path) == exitcodes.OK
    assert run.result()["evaluation"]["backend"] == "folder"


def test_bf16_and_label_smoothing_train_on_the_cpu(tiny_run: Callable[..., Path], run_here: Callable[..., int]) -> None:
    run = RunDir(tiny_run("scale.precision=bf16", "train.label_smoothing=0.1", "optimizer=adarem_s"))
    assert run_here(run.path) == exitcodes.OK
    state = final_state(run)
    assert all(v.dtype != torch.bfloat16 for v in state["model"].values())


def test_a_run_with_a_holdout_never_opens_the_validation_file(
    tiny_run: Callable[..., Path], run_here: Callable[..., int], digits_root: Path, tmp_path: Path
) -> None:
    """Its files are gone; the run trains, resumes and finishes, and its figures are under names of their own."""
    beton_dir = tmp_path / "ffcv"
    beton_dir.mkdir()
    for file in (digits_root / "ffcv").glob("train.*"):
        (beton_dir / file.name).write_bytes(file.read_bytes())
    held = (f'data.beton_dir="{beton_dir}"', "data.holdout=137", "data.holdout_seed=2", "scale.global_batch_size=260")
    complete, broken = (RunDir(tiny_run(*held, folder=folder)) for folder in ("complete", "broken"))
    assert run_here(complete.path) == exitcodes.OK
    assert run_here(broken.path, StopAtStep(3)) == exitcodes.REQUEUE
    assert run_here(broken.path) == exitcodes.OK
    assert run_here(broken.path) == exitcodes.OK  # finished before; its data are looked at once more
    assert_same_bits(final_state(complete), final_state(broken))
    assert figures(complete) == figures(broken)
    result, metrics = complete.result(), complete.metrics()
    assert [(m["split"], m["images"]) for m in metrics] == [("train", 1300), ("holdout", 137)] * 2 or [
        (m["split"], m["images"]) for m in metrics
    ] == [("holdout", 137), ("train", 1300)] * 2
    assert result["steps"] == 10  # two epochs of the 1,300 others
    assert not {"top1", "top5", "best_top1", "val_loss"} & result.keys()
    correct = complete.correct()
    assert len(correct["top1"]) == 137 and result["holdout_top1"] == 100 * float(correct["top1"].mean())
    assert result["fingerprint"].keys() == {"train", "holdout"}
    assert result["fingerprint"]["holdout"]["num_images"] == result["evaluation"]["images"] == 137
    assert result["evaluation"]["split"] == "holdout"


def test_a_checkpoint_of_other_held_out_images_is_refused(
    tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    run = RunDir(tiny_run("data.holdout=0.1"))
    assert run_here(run.path, StopAtStep(2)) == exitcodes.REQUEUE
    run.config_file.write_text(run.config_file.read_text().replace("holdout: 0.1", "holdout: 0.1\n  holdout_seed: 1"))
    with pytest.raises(UserError, match=r"made with other settings of data.holdout_seed"):
        run_here(run.path)


@pytest.mark.slow
def test_held_out_figures_are_the_same_on_two_ranks(tiny_run: Callable[..., Path]) -> None:
    held = ("data.holdout=0.1", "scale.global_batch_size=256")
    one = RunDir(tiny_run(*held, folder="one"))
    two = RunDir(tiny_run(*held, "cluster.ranks_per_node=2", folder="two"))
    for ranks, run in ((1, one), (2, two)):
        done = train_on_ranks(ranks, run.path)
        assert done.returncode == exitcodes.OK, done.stderr
    assert one.result()["fingerprint"] == two.result()["fingerprint"]
    assert len(two.correct()["top1"]) == 144 and two.result()["evaluation"]["images"] == 144
