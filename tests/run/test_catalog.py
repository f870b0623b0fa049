"""The catalog agrees with the files that users override, and with itself."""

import pytest
import yaml

from adarem.run.catalog import DATA_SETS, IMAGE_NETWORKS, NETWORKS, OPTIMIZERS, default_scale
from tests.support import ROOT

CONFIGS = ROOT / "configs"


def files(group: str) -> dict[str, dict]:
    return {p.stem: yaml.safe_load(p.read_text()) for p in sorted((CONFIGS / group).glob("*.yaml"))}


@pytest.mark.parametrize(("group", "known"), [("optimizer", OPTIMIZERS), ("model", NETWORKS), ("data", DATA_SETS)])
def test_every_name_has_its_file_and_no_file_repeats_the_catalog(group: str, known: dict) -> None:
    found = {name: raw for name, raw in files(group).items() if name != "folder"}  # whose name plan finds
    assert set(found) == set(known)
    for name, raw in found.items():
        assert raw["name"] == name and "label" not in raw, f"configs/{group}/{name}.yaml"


def test_default_settings_of_optimizers_are_the_known_ones() -> None:
    for name, raw in files("optimizer").items():
        assert set(raw) - {"name", "lr", "weight_decay"} == set(OPTIMIZERS[name].hparams)


def test_curves_can_be_told_apart() -> None:
    looks = [(o.color, o.line) for o in OPTIMIZERS.values()]
    assert len(set(looks)) == len(looks)


def test_default_scales_exist() -> None:
    scales = files("scale")
    assert {d.default_scale for d in DATA_SETS.values()} <= set(scales)
    for known in DATA_SETS.values():
        if known.paper_scale:
            raw, paper = scales[known.default_scale], known.paper_scale
            assert (raw["epochs"], raw["global_batch_size"]) == (paper.epochs, paper.global_batch_size)
    assert default_scale("somebody's own") == "small"


def test_image_networks_are_those_that_a_grid_can_name() -> None:
    assert set(IMAGE_NETWORKS) == set(NETWORKS) - {"awd_lstm", "gpt"}
