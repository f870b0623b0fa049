"""Which schedule is common to a sweep's runs, and which optimizers have one of their own."""

from adarem.run.schedules import schedule_text, schedules
from tests.support.sweeps import make_config

CONSTANT = {"schedule": {"name": "constant"}}


def test_words() -> None:
    assert schedule_text(make_config("resnet18", "sgdm")) == "cosine learning rate, no warm-up"
    changed = {"schedule": {"warmup_epochs": 5, "min_lr": 0.001}, "train": {"clip_grad_norm": 1.0}}
    text = "cosine learning rate, 5 epochs of warm-up, falls to 0.001, gradient clipped to norm 1"
    assert schedule_text(make_config("resnet18", "sgdm", changed=changed)) == text
    unclipped = make_config("resnet18", "sgdm", changed={"train": {"clip_grad_norm": 0.0}})
    assert schedule_text(unclipped).endswith(", gradient not clipped")


def test_one_that_differs_from_the_others_has_its_own() -> None:
    runs = [make_config("resnet18", name, seed) for name in ("sgdm", "adam") for seed in (0, 1)]
    assert schedules(runs).own == {}
    own = [make_config("resnet18", "adarem", seed, changed=CONSTANT) for seed in range(5)]
    found = schedules([*own, *runs])  # optimizers count, not runs
    assert found.common.schedule.name == "cosine"
    assert found.own == {"AdaRem": "constant learning rate, no warm-up"}
    late, early = (
        make_config("resnet18", "adamw", changed={"schedule": {"name": "step", "milestones": [m]}}) for m in (60, 30)
    )
    assert schedules([*runs, late]).own["AdamW"] == "step learning rate, no warm-up, times 0.1 at epochs 60"
    assert schedules([*runs, late, early]).own == {}  # of no one kind


def test_what_is_varied_on_purpose_is_no_schedule_of_its_own() -> None:
    varied = make_config("resnet18", "adam", overrides={"schedule.warmup_epochs": 5})
    assert schedules([make_config("resnet18", "sgdm"), make_config("resnet18", "adam"), varied]).own == {}
    assert schedules([varied]).common is varied
