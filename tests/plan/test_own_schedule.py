"""A schedule and clipping of an optimizer's own: what its file says, and what wins over it."""

from pathlib import Path

import pytest

from adarem.plan.plan import make_plan
from adarem.run.errors import UserError
from tests.support.optimizers import write_module


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path, "own_to_plan")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def write_file(name: str, text: str) -> None:
    file = Path("configs", "optimizer", f"{name}.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


OWN = "schedule: {name: constant, warmup_epochs: 1}\nclip_grad_norm: 1.0\n"


def test_a_file_may_have_a_schedule_and_clipping_of_its_own() -> None:
    """The frozen config says what happens; no key of it is left in the optimizer's section."""
    write_file("mine", f"name: own_to_plan:Mine\nlr: 0.02\n{OWN}")
    plan = make_plan(["data=digits", "optimizer=sgdm,adam,mine"])
    sgdm, _, mine = (r.config for r in plan.runs)
    assert (sgdm.schedule.name, sgdm.train.clip_grad_norm) == ("cosine", None)
    assert (mine.schedule.name, mine.schedule.warmup_epochs, mine.train.clip_grad_norm) == ("constant", 1, 1.0)
    assert not {"schedule", "clip_grad_norm"} & {*mine.optimizer.hparams, *mine.overrides}
    line = "own schedule: mine: constant learning rate, 1 epochs of warm-up, gradient clipped to norm 1"
    assert line in plan.describe().splitlines() and ", cosine schedule," in plan.describe()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("scale=rehearsal", ("constant", 1.0, 1.0)),
        ("schedule=cosine", ("cosine", 0.0, 1.0)),
        ("schedule.warmup_epochs=2", ("constant", 2.0, 1.0)),
        ("train.clip_grad_norm=5", ("constant", 1.0, 5.0)),
        ("schedule=step,cosine", ("step", 0.0, 1.0)),
    ],
)
def test_what_is_given_for_every_optimizer_wins(given: str, expected: tuple[str, float, float]) -> None:
    write_file("sgd", f"name: sgd\nlr: 0.1\nweight_decay: 0.0\n{OWN}")
    c = make_plan(["data=digits", "optimizer=sgd", given]).runs[0].config
    assert (c.schedule.name, c.schedule.warmup_epochs, c.train.clip_grad_norm) == expected


def test_schedule_free_optimizers_keep_their_rate_unless_told() -> None:
    name = "pytorch_optimizer:ScheduleFreeSGD"
    write_file("free", f"name: {name}\nlr: 0.5\nschedule: {{name: cosine, min_lr: 0.1}}\n")
    grid = ["data=digits", f"optimizer=sgdm,{name},free", "optimizer.lr=0.5"]
    plan = make_plan(grid)
    assert [r.config.schedule.name for r in plan.runs] == ["cosine", "constant", "cosine"]
    assert [r.config.schedule.min_lr for r in plan.runs] == [0, 0, 0.1]
    assert "own schedule: ScheduleFreeSGD: constant learning rate, no warm-up" in plan.describe()
    assert {
        r.config.schedule.name for r in make_plan([*grid[:1], f"optimizer={name}", grid[2], "schedule=step"]).runs
    } == {"step"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("schedule: {nam: constant}", "optimizer.schedule.nam: no such key; did you mean 'name'?"),
        ("schedule: {name: constantly}", "optimizer.schedule.name=constantly: did you mean 'constant'?"),
        ("schedule: {warmup_epochs: -1}", "optimizer.schedule.warmup_epochs=-1.0: needs 0 or more"),
        ("schedule: constant", "optimizer.schedule=constant: needs a mapping, for instance {name: constant}"),
        ("clip_grad_norm: -1", "optimizer.clip_grad_norm=-1.0: needs 0 or more"),
        ("clip_grad_norms: 1", "optimizer.clip_grad_norms: sgdm has no such setting"),
    ],
)
def test_a_schedule_of_its_own_with_a_mistake_is_one_line(text: str, line: str) -> None:
    write_file("sgdm", f"name: sgdm\nlr: 0.1\nweight_decay: 0.0\nmomentum: 0.9\n{text}\n")
    with pytest.raises(UserError) as error:
        make_plan(["data=digits", "optimizer=sgdm"])
    assert line in str(error.value)
