"""A config is complete and correct, or refused with one line that names the key."""

import copy
import math

import pytest
import yaml

from adarem.plan.plan import make_plan
from adarem.run.config import from_dict, to_dict
from adarem.run.errors import UserError
from adarem.run.identity import config_hash


@pytest.fixture(scope="module")
def raw() -> dict:
    return to_dict(make_plan(["data=digits", "optimizer=adarem"]).runs[0].config)


def changed(raw: dict, key: str, value: object) -> dict:
    new = copy.deepcopy(raw)
    *path, leaf = key.split(".")
    node = new
    for word in path:
        node = node[word]
    node[leaf] = value
    return new


def test_round_trip_through_yaml(raw: dict) -> None:
    config = from_dict(raw)
    again = from_dict(yaml.safe_load(yaml.safe_dump(to_dict(config))))
    assert again == config
    assert config_hash(again) == config_hash(config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sched", {}, "sched: no such key; did you mean 'schedule'?"),
        ("data.wrokers", 3, "data.wrokers: no such key; did you mean 'workers'?"),
        ("optimizer.betta", 0.9, "optimizer.betta: adarem has no such setting; did you mean 'beta'?"),
        ("optimizer.momentum", 0.9, "optimizer.momentum: adarem has no such setting"),
        ("optimizer.lr", -0.1, "optimizer.lr=-0.1: needs a number above 0"),
        ("optimizer.lr", math.nan, "optimizer.lr=nan: needs a finite number"),
        ("optimizer.lr", "fast", "optimizer.lr='fast': needs float, not str"),
        ("optimizer.beta", 1.5, "optimizer.beta=1.5: needs 0 to 1"),
        ("optimizer.scope", "layer", "optimizer.scope=layer: needs one of tensor, model"),
        ("optimizer.name", "adarm", "optimizer.name=adarm: unknown optimizer; did you mean 'adarem'?"),
        ("model.name", "resnet81", "model.name=resnet81: unknown model; did you mean 'resnet18'?"),
        ("schedule.name", "cosin", "schedule.name=cosin: did you mean 'cosine'?"),
        ("scale.epochs", 0, "scale.epochs=0: needs 1 or more"),
        ("scale.epochs", True, "scale.epochs=True: needs int, not bool"),
        ("scale.epochs", 2.5, "scale.epochs=2.5: needs int, not float"),
        ("scale.global_batch_size", 33, "2 ranks do not divide scale.global_batch_size=33"),
        ("scale.lr_factor", 0.0, "scale.lr_factor=0.0: needs a number above 0"),
        ("seed", -1, "seed=-1: needs an integer of 0 or more, below 2**32"),
        ("seed", 2**32, "seed=4294967296: needs an integer of 0 or more, below 2**32"),
        ("grid", "../x", "grid=../x: names files; use letters, digits and _ . + = -"),
        ("data.name", "a/b", "data.name=a/b: names files"),
        ("scale.name", "..", "scale.name=..: names files"),
        ("scale.name", "x" * 65, "at most 64"),
        ("seed", "one", "seed='one': needs int, not str"),
        ("data.flip", 2.0, "data.flip=2.0: needs 0 to 1"),
        ("data.crop_area", [0.9, 0.1], "data.crop_area=[0.9, 0.1]: needs [smallest, largest]"),
        ("data.eval_crop", 999, "data.eval_crop=999: larger than data.eval_resize=36"),
        ("data.mean", 0.5, "data.mean=0.5: needs a list of float"),
        ("data.write.jpeg_quality", 101, "data.write.jpeg_quality=101: needs 1 to 100"),
        ("data.write", None, "data.write=None: needs a mapping"),
        ("schedule.warmup_epochs", 12, "schedule.warmup_epochs=12.0: needs 0 up to scale.epochs=10"),
        ("schedule.min_lr", 1.0, "schedule.min_lr=1.0: larger than optimizer.lr=0.4; lower it"),
        (
            "schedule",
            {"name": "constant", "warmup_epochs": 0, "milestones": [], "gamma": 0.1, "min_lr": 0.1},
            "schedule.min_lr=0.1: the constant schedule has no such end; leave it out, or",
        ),
        ("train.clip_grad_norm", -1.0, "train.clip_grad_norm=-1.0: needs 0 or more"),
        ("optimizer.no_decay", ["biases"], r"optimizer.no_decay[0]=biases: did you mean 'bias'?"),
        ("train.label_smoothing", 1.0, "train.label_smoothing=1.0: needs 0 or more, below 1"),
    ],
)
def test_one_line_names_the_key(raw: dict, key: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        from_dict(changed(raw, key, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


WANDB_KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cluster.setup", "module load cuda; export WANDB_API_KEY=abc"),
        ("cluster.setup", "export WANDB_API_KEY = 'abc'"),
        ("cluster.setup", f"wandb login {WANDB_KEY}"),
        ("cluster.setup", f"echo local-{WANDB_KEY.upper()} >key"),
        ("cluster.setup", "K=wandb_v1_AbC123; run"),
        ("cluster.extra", ["--export=ALL,WANDB_API_KEY=abc"]),
        ("cluster.aux_extra", ["--qos=x", f"--comment={WANDB_KEY}"]),
        ("wandb.project", WANDB_KEY),
        ("wandb.entity", WANDB_KEY),
    ],
)
def test_a_wandb_key_is_refused_and_not_repeated(raw: dict, key: str, value: object) -> None:
    with pytest.raises(UserError) as caught:
        from_dict(changed(raw, key, value))
    assert str(caught.value).startswith(f"{key}: holds what looks like a wandb key")
    assert not any(secret in str(caught.value) for secret in ("abc", WANDB_KEY, "AbC123"))


@pytest.mark.parametrize(
    "line",
    [
        'export WANDB_API_KEY="$(cat ~/.key)"',
        "export WANDB_API_KEY=$KEY_OF_MINE",
        "unset WANDB_API_KEY",
        f"spack load /{WANDB_KEY[:32]}",
        f"git checkout {WANDB_KEY}{WANDB_KEY[:24]}",
    ],
)
def test_no_wandb_key(raw: dict, line: str) -> None:
    assert from_dict(changed(raw, "cluster.setup", line)).cluster.setup == line


def test_missing_key_is_named(raw: dict) -> None:
    del raw["data"]["workers"]
    with pytest.raises(UserError, match=r"^data\.workers: missing$"):
        from_dict(raw)
    raw["data"]["workers"] = 1
