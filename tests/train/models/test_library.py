"""Networks by name: the published sizes, the same weights everywhere, clear refusals."""

import pytest
import torch

from adarem.run.catalog import IMAGE_NETWORKS
from adarem.run.errors import UserError
from adarem.train.models.library import build_model, check_name, count_parameters

# Parameters at 1,000 classes: torchvision's weight metadata (num_params), and timm's mobilenetv2_050
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "mobilenet_v2_1.0": 3_504_872,
    "mobilenet_v2_0.5": 1_968_680,
    "shufflenet_v2_1.0": 2_278_604,
    "shufflenet_v2_0.5": 1_366_792,
}


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    assert count_parameters(build_model(name, 1000, seed=0)) == PUBLISHED[name]


def test_libraries_own_counts() -> None:
    """The figures above are the libraries' own."""
    import timm
    import torchvision.models as tv

    for name, weights in (
        ("resnet18", tv.ResNet18_Weights.IMAGENET1K_V1),
        ("resnet50", tv.ResNet50_Weights.IMAGENET1K_V1),
        ("mobilenet_v2_1.0", tv.MobileNet_V2_Weights.IMAGENET1K_V1),
        ("shufflenet_v2_1.0", tv.ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1),
        ("shufflenet_v2_0.5", tv.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1),
    ):
        assert weights.meta["num_params"] == PUBLISHED[name]
    assert count_parameters(timm.create_model("mobilenetv2_050")) == PUBLISHED["mobilenet_v2_0.5"]


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet10t", "torchvision:squeezenet1_1"])
def test_the_seed_decides_the_weights_and_nothing_else_does(name: str) -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    a = build_model(name, 10, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(456)
    b, c = build_model(name, 10, seed=1), build_model(name, 10, seed=2)
    pairs = list(zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert all(torch.equal(x, y) for x, y in pairs)
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))
    assert a.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 10)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "model.name=resnet81: unknown model; did you mean 'resnet18'?"),
        ("timm:resnt18", "model.name=timm:resnt18: unknown model; did you mean"),
        ("torchvision:vgg61", "model.name=torchvision:vgg61: unknown model; did you mean 'vgg1"),
        ("hub:resnet18", "unknown library hub; write timm:NAME or torchvision:NAME"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_name(name)
    assert message in str(caught.value)
