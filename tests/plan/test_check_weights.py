"""Files of weights to start from, at plan: found, hashed, and tried in the networks that start from them."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from adarem.plan.check_weights import complete_weights
from adarem.plan.plan import make_plan
from adarem.run.errors import UserError
from adarem.run.identity import config_hash
from adarem.train.models.library import build_model

SMALL = ["data=digits", "model=shufflenet_v2_0.5", "optimizer=sgdm"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def weights(classes: int = 10, without: str = "nothing") -> None:
    state = build_model("shufflenet_v2_0.5", classes, 7).state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith(without)}, "weights.pt")


def test_the_file_is_in_the_runs_identity_and_where_it_lies_is_not() -> None:
    weights()
    plan = make_plan([*SMALL, "model.init=weights.pt"])
    config = plan.runs[0].config
    assert config.model.init == os.path.abspath("weights.pt") and "init=weights.pt" in config.run_name
    assert config_hash(config) != config_hash(make_plan(SMALL).runs[0].config)
    Path("elsewhere").mkdir()
    shutil.copy("weights.pt", "elsewhere")
    moved = make_plan([*SMALL, "model.init=elsewhere/weights.pt"]).runs[0].config
    assert config_hash(moved) == config_hash(config) and moved.model.init != config.model.init
    plan.write()
    weights(without="fc.")
    with pytest.raises(UserError, match="model.init_sha256"):  # another run under the same name
        make_plan([*SMALL, "model.init=weights.pt"])


def test_a_file_without_the_classifier_is_said() -> None:
    weights(1000, without="fc.")
    plan = make_plan([*SMALL, "model.init=weights.pt"])
    assert "has no fc.weight and fc.bias, so the classifier starts anew" in plan.describe()


def test_what_does_not_fit_is_refused_before_anything_is_written() -> None:
    weights(1000)
    with pytest.raises(UserError, match=r"weights.pt: fc.weight is of 1000 classes and the data have 10; save the"):
        make_plan([*SMALL, "model.init=weights.pt"])
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ({"init": "nowhere.pt"}, r"model.init=nowhere.pt: cannot be read \(No such file or directory\); name a file"),
        ({"init": 3}, "model.init=3: needs a file of weights"),
        ({"init": "here.pt", "init_sha256": "0"}, "is not the file of model.init_sha256; leave that out"),
    ],
)
def test_a_file_that_cannot_be_taken(model: dict[str, object], line: str) -> None:
    Path("here.pt").write_bytes(b"")
    with pytest.raises(UserError, match=line):
        complete_weights(model)
