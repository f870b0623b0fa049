"""How many images are normalised together, and when that makes another run of one."""

import pytest

from adarem.run.batch_norm import normalised_together, papers_number, recorded_numbers
from adarem.run.config import RunConfig
from adarem.run.errors import UserError
from adarem.run.identity import config_hash, identity
from tests.support.sweeps import make_config


def config(
    micro: int | None, ranks: int = 16, model: str = "resnet18", data: str = "imagenet", batch: int = 1024
) -> RunConfig:
    changed = {
        "scale": {"micro_batch_size": micro, "global_batch_size": batch},
        "cluster": {"nodes": 1, "ranks_per_node": ranks},
    }
    return make_config(model, "sgdm", data=data, changed=changed)


@pytest.mark.parametrize(
    ("micro", "ranks", "passes", "images"),
    [(None, 16, 1, 64), (None, 1, 1, 1024), (64, 1, 16, 64), (64, 2, 8, 64), (64, 16, 1, 64), (32, 4, 8, 32)],
)
def test_passes_of_a_step(micro: int | None, ranks: int, passes: int, images: int) -> None:
    c = config(micro, ranks)
    assert c.scale.passes(ranks) == passes and normalised_together(c) == images and papers_number(c) == 64
    assert config_hash(c) == config_hash(config(None)) or images == 32  # ranks alone are a circumstance, as before
    assert papers_number(config(None, 1, data="digits")) is None and papers_number(config(None, 1, batch=512)) is None


def test_another_number_is_another_run_and_the_papers_is_not() -> None:
    key = "scale.micro_batch_size"
    assert (
        identity(config(128, 1))[key] == 128
        and key not in identity(config(64, 1))
        and key not in identity(config(None))
    )
    assert config_hash(config(128, 1)) == config_hash(config(128, 8)) != config_hash(config(64))
    assert identity(config(32, 1, data="digits"))[key] == 32  # the paper has no number for it


def test_a_rehearsals_two_ranks_may_be_two_passes_of_one() -> None:
    def digits(micro: int | None, ranks: int, batch: int = 64) -> RunConfig:
        return config(micro, ranks, data="digits", batch=batch)

    assert config_hash(digits(32, 1)) == config_hash(digits(None, 2)) == config_hash(digits(32, 2))
    assert normalised_together(digits(32, 1)) == normalised_together(digits(None, 2)) == 32
    assert len({config_hash(digits(micro, 1)) for micro in (16, 32, 64)}) == 3
    assert "scale.micro_batch_size" in identity(digits(32, 1, batch=128))


def test_parts_of_unlike_sizes_are_refused_with_a_size_that_fits() -> None:
    line = r"^scale.micro_batch_size=100: does not divide 512, .*=1024 at a world size of 2; take 64 or 128$"
    with pytest.raises(UserError, match=line):
        config(100, 2)
    with pytest.raises(UserError, match="does not divide 64, .* world size of 16; take 64$"):
        config(128, 16)
    for wrong in (0, -1, "auto", 2.5):
        with pytest.raises(UserError, match=r"^scale.micro_batch_size"):
            config(wrong)  # type: ignore[arg-type]


def test_what_epochs_record() -> None:
    lines: list[dict[str, object]] = [
        {"split": "train", "world_size": 16},  # of before
        {"split": "val"},
        {"split": "train", "world_size": 16, "batch_norm_images": 64},
        {"split": "train", "world_size": 4, "batch_norm_images": 256},
        {"split": "train", "world_size": -1, "batch_norm_images": "many"},
    ]
    assert recorded_numbers(config(None), lines) == [64, 256]
    own = make_config("resnet18", "sgdm", changed={"model": {"name": "timm:test_vit"}})
    assert recorded_numbers(own, lines[:1]) == [] and normalised_together(own) is None
