"""Weights to start from: read without pickle, fit to the last key, or one line that names the first that does not."""

import hashlib
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from adarem.run.errors import UserError
from adarem.train.models.initial_weights import load_initial_weights


def network(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


def load(model: nn.Module, file: Path, **more: str | int) -> str | None:
    return load_initial_weights(model, str(file), name="mine", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("nested", [None, "model", "state_dict"])
def test_of_torch(nested: str | None, tmp_path: Path) -> None:
    source, target, file = network(), network(), tmp_path / "weights.pt"
    state = source.state_dict()
    torch.save({nested: state, "step": 3} if nested else state, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert load(target, file, num_classes=3, sha256=digest) is None
    assert all(torch.equal(v, state[k]) for k, v in target.state_dict().items())
    with pytest.raises(UserError, match="changed since this run was planned; put the old file back"):
        load(target, file, sha256="0" * 64)


def test_of_safetensors(tmp_path: Path) -> None:
    source, target, file = network(), network(), tmp_path / "weights.safetensors"
    safetensors.torch.save_file(source.state_dict(), file)
    load(target, file)
    assert torch.equal(target[0].weight, source[0].weight)
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match="no file of safetensors"):
        load(target, file)


def test_a_file_without_the_classifier_leaves_it_as_it_is(tmp_path: Path) -> None:
    target, file = network(), tmp_path / "weights.pt"
    fresh = target[3].weight.detach().clone()
    torch.save({k: v for k, v in network().state_dict().items() if not k.startswith("3.")}, file)
    assert str(load(target, file, num_classes=3)).endswith("has no 3.weight and 3.bias, so the classifier starts anew")
    assert torch.equal(target[3].weight, fresh)


def test_what_does_not_fit_is_named_and_changes_nothing(tmp_path: Path) -> None:
    def changed(**keys: torch.Tensor | None) -> dict[str, torch.Tensor]:
        state = {**network().state_dict(), **{k.replace("__", "."): v for k, v in keys.items()}}
        return {k: v for k, v in state.items() if v is not None}

    cases = [
        (
            network(1000).state_dict(),
            r"3.weight is of 1000 classes and the data have 3; save the file without 3.weight ",
        ),
        (changed(**{"0__weight": None}), r"lacks 0.weight of mine, 1 of 9 in all"),
        (
            changed(**{"0__weight": torch.zeros(4, 1, 3, 3)}),
            r"0.weight is \[4, 1, 3, 3\] there and \[4, 3, 3, 3\] in m",
        ),
        (changed(**{"9__weight": torch.zeros(1)}), r"holds 9.weight, which mine lacks"),
        (changed(**{"3__bias": None}), r"lacks 3.bias of mine"),  # half a classifier is none
    ]
    file = tmp_path / "weights.pt"
    for state, line in cases:
        target = network()
        before = {k: v.clone() for k, v in target.state_dict().items()}
        torch.save(state, file)
        with pytest.raises(UserError, match=f"^model.init={file}: {line}") as error:
            load(target, file, num_classes=3)
        assert "\n" not in str(error.value)
        assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "executed",)  # type: ignore[return-value]

    file = tmp_path / "weights.pt"
    for write in (
        lambda: torch.save({"weight": Bomb()}, file),
        lambda: file.write_bytes(pickle.dumps(Bomb(), protocol=2)),
    ):
        write()
        with pytest.raises(UserError, match="not a file of tensors alone"):
            load(network(), file)
    torch.save([torch.zeros(1)], file)
    with pytest.raises(UserError, match="holds no state_dict"):
        load(network(), file)
    with pytest.raises(UserError, match=r"nowhere.pt: cannot be read \(No such file or directory\)"):
        load(network(), tmp_path / "nowhere.pt")
    assert not (tmp_path / "executed").exists()
