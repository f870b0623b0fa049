"""What of a config decides a result, and what does not."""

import dataclasses

from adarem.run.build import LATER, later_keys, unset
from adarem.run.directory import RunDir
from adarem.run.identity import config_hash, differing_keys, hash_of, identity
from tests.support import ROOT
from tests.support.sweeps import make_config


def test_identity_leaves_out_circumstances_only() -> None:
    config = make_config("resnet18", "adarem")
    elsewhere = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, root="/elsewhere", beton_dir="/elsewhere/ffcv", workers=3),
        cluster=dataclasses.replace(config.cluster, ranks_per_node=4),
    )
    assert config_hash(elsewhere) == config_hash(config) and elsewhere != config
    other = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, weight_decay=0.5))
    assert config_hash(other) != config_hash(config)
    assert differing_keys(config, other) == ["optimizer.weight_decay: 0.0001 against 0.5"]
    assert {"optimizer.beta", "data.crop_area", "seed", "scale.epochs", "cell"} <= identity(config).keys()


def test_the_hash_is_that_of_earlier_versions() -> None:
    """As commit 10271ae hashed the golden runs: runs of that version go on."""
    runs = ROOT / "tests" / "golden" / "sweeps" / "table3" / "table3_search"
    hashes = {"lr=30.0-momentum=0.5": "a3ded3e6ff80c942", "lr=30.0-momentum=0.9": "0d6b9aa8a4190a18"}
    for settings, expected in hashes.items():
        config = RunDir(runs / f"awd_lstm-sgdm-{settings}-s0").config()
        assert config_hash(config) == hash_of(identity(config)) == expected


def test_a_later_setting_counts_only_where_it_is_set() -> None:
    @dataclasses.dataclass(frozen=True)
    class Inner:
        old: int = 1
        new: float = dataclasses.field(default=0.0, metadata={LATER: True})

    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: Inner
        later: str | None = dataclasses.field(default=None, metadata={LATER: True})

    assert list(unset(Outer(Inner()))) == list(later_keys(Outer)) == ["inner.new", "later"]
    assert list(unset(Outer(Inner(new=0.5), "x"))) == []
