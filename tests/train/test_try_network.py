"""One pass through a network before the queue: what fits passes, what does not is one line."""

from pathlib import Path

import pytest

from adarem.run.config import RunConfig, from_dict, to_dict
from adarem.run.errors import UserError
from adarem.train.try_network import describe_network, try_network
from tests.support.networks import write_networks
from tests.support.sweeps import make_config


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return write_networks(tmp_path, "nets_to_try")


def config(name: str, *, batch: int = 64, ranks: int = 1, **data: object) -> RunConfig:
    raw = to_dict(make_config("resnet18", "sgdm", data="digits", changed={"data": data}))
    model = {"name": name, "label": "Mine", "kind": "images"}
    scale = dict(raw["scale"]) | {"global_batch_size": batch}  # type: ignore[call-overload]
    cluster = dict(raw["cluster"]) | {"ranks_per_node": ranks}  # type: ignore[call-overload]
    return from_dict(raw | {"model": model, "scale": scale, "cluster": cluster})


def test_the_settings_of_a_signature() -> None:
    found = describe_network("nets_to_try:Small", ["num_classes"])
    assert found == {
        "names": ["width", "depth", "act"],
        "required": [],
        "defaults": {"width": 8, "depth": 2, "act": "relu"},
    }
    assert describe_network("nets_to_try:make_required", ["num_classes"])["required"] == ["rank"]


@pytest.mark.parametrize(
    "name",
    [
        "nets_to_try:Small", "nets_to_try:make_network", "nets_to_try:Asking", "nets_to_try:Unused",
        "torchvision:googlenet", "timm:resnet10t",
    ],
)  # fmt: skip
def test_what_fits_passes(name: str) -> None:
    try_network(config(name))


def test_the_meta_device_is_enough_for_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 64 of 224 px takes no memory there; only where it does not work does the CPU decide."""
    import torch

    made: list[str] = []
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *a, **k: made.append(str(k["device"])) or randn(*a, **k))
    try_network(config("nets_to_try:Small", train_crop=224))
    assert set(made) == {"meta"}
    try_network(config("nets_to_try:Asking"))
    assert made[-1] == "cpu"


@pytest.mark.parametrize(
    ("name", "ranks", "line"),
    [
        ("nets_to_try:Paired", 1, r"returns a tuple of 2, not scores alone; return one tensor \[images, classes\]"),
        ("nets_to_try:Squeezed", 1, r"returns \[10\], not \[1, 10\] \(images, classes\); make its last layer"),
        ("nets_to_try:make_fixed", 1, r"returns \[2, 1000\], not \[2, 10\]"),
        ("nets_to_try:make_wide", 1, r"does not take 2 images of 32 x 32 px \(.*\); take another network, or another"),
        ("nets_to_try:Unused", 2, "gives 2 of 12 parameters no gradient, extra.weight among them, for which 2 ranks"),
        ("nets_to_try:make_frozen", 1, "has no parameter that its output depends on; nothing would be trained"),
        ("nets_to_try:make_broken", 1, r"cannot be built \(no such width\); correct model"),
        ("nets_to_try:make_nothing", 1, "returns NoneType, no torch.nn.Module; return one"),
        ("torchvision:alexnet", 1, "does not take 2 images of 32 x 32 px"),
    ],
)
def test_what_does_not_fit_is_one_line(name: str, ranks: int, line: str) -> None:
    with pytest.raises(UserError, match=rf"^model={name}: {line}") as error:
        try_network(config(name, ranks=ranks))
    assert "\n" not in str(error.value)


def test_one_image_on_each_rank_and_batch_norm_on_a_map_of_one_pixel() -> None:
    with pytest.raises(UserError, match=r"does not take an image .*; raise scale.global_batch_size, start fewer ranks"):
        try_network(config("resnet18", batch=2, ranks=2))
    try_network(config("resnet18", batch=2, ranks=2, train_crop=33, eval_resize=40))
    try_network(config("resnet18", batch=2))


def test_evaluation_of_another_size() -> None:
    with pytest.raises(UserError, match=r"96 x 96 px \(.*\); take another network, or another data.eval_crop"):
        try_network(config("timm:vit_tiny_patch16_224", train_crop=224, eval_resize=96, eval_crop=96))


def text_config(name: str) -> RunConfig:
    counts = dict.fromkeys(("expected_train", "expected_val", "expected_test"))
    data = {
        "kind": "text",
        "name": "mine",
        "label": "Mine",
        "root": "/d",
        "embedded": False,
        "vocabulary": 500,
    } | counts
    model = {"name": name, "label": "Mine", "kind": "text", "context": 12}
    return from_dict(to_dict(make_config("resnet18", "sgdm", data="digits")) | {"model": model, "data": data | counts})


def test_a_language_model_that_fits() -> None:
    assert describe_network("nets_to_try:Lm", ["vocabulary", "context"])["names"] == ["width", "first", "both"]
    try_network(text_config("nets_to_try:Lm"))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("make_lm_of_few", r"does not take windows of 12 words \(index out of range in self\); make it take int64"),
        ("make_lm_of_columns", r"scores a window by other windows; its input is \[windows, words\]"),
        ("make_lm_that_peeks", "scores a word by words that come after it; mask them"),
        ("make_network", "names no vocabulary in its signature, with which it is called; add it"),
    ],
)
def test_a_language_model_that_does_not(name: str, line: str) -> None:
    with pytest.raises(UserError, match=rf"^model=nets_to_try:{name}: {line}"):
        try_network(text_config(f"nets_to_try:{name}"))
