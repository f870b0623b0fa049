"""Networks by where they are imported from: found, built under the seed, recorded; or refused in one line."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch

from adarem.run.config import from_dict, to_dict
from adarem.run.errors import UserError
from adarem.train.models.build import build_network
from adarem.train.named_networks import build_named_network, load_named_network, source_of_network
from tests.support.networks import write_networks
from tests.support.sweeps import make_config


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nets_to_name", raising=False)  # another test's, whose file is gone
    return write_networks(tmp_path, "nets_to_name")


@pytest.mark.parametrize("name", ["nets_to_name:Small", "nets_to_name:make_network"])
def test_the_seed_decides_the_weights_and_nothing_else_does(name: str) -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    a = build_named_network(name, 1, {"width": 4}, {"num_classes": 7})
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(456)
    b, c = (build_named_network(name, seed, {"width": 4}, {"num_classes": 7}) for seed in (1, 2))
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))
    assert a(torch.zeros(2, 3, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("no_such_module_x:make", "no module no_such_module_x can be imported; install it, or set PYTHONPATH"),
        ("nets_to_name:Smal", "nets_to_name has no Smal; did you mean 'Small'"),
        ("nets_to_name:number", "neither a function nor a class but int; name a function"),
        ("nets_to_name:NoNetwork", "NoNetwork is no subclass of torch.nn.Module; name one"),
        ("nets_to_name:make_without", "names no num_classes in its signature, with which it is called; add it"),
    ],
)
def test_names_that_stand_for_no_network(name: str, line: str) -> None:
    with pytest.raises(UserError, match=rf"^model={name}: {line}"):
        load_named_network(name, "num_classes")


def test_where_it_comes_from_is_recorded(own: Path) -> None:
    raw = to_dict(make_config("resnet18", "sgdm", data="digits"))
    assert source_of_network(from_dict(raw)) is None
    mine = from_dict(raw | {"model": {"name": "mine", "label": "Mine", "class": "nets_to_name:Small", "width": 4}})
    found = source_of_network(mine)
    assert found is not None and found["name"] == "nets_to_name:Small"
    assert (found["file"], found["sha256"]) == (own.name, hashlib.sha256(own.read_bytes()).hexdigest())
    assert sum(p.numel() for p in build_network(mine).head.parameters()) == 4 * 10 + 10  # type: ignore[union-attr]
