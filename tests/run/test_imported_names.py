"""Names of optimizers that are imported."""

import pytest

from adarem.run.catalog import OPTIMIZERS
from adarem.run.errors import UserError
from adarem.run.imported_names import check_form, default_label, is_imported, is_own_network


def test_names_of_the_catalog_are_not_imported() -> None:
    assert not any(map(is_imported, OPTIMIZERS)) and is_imported("torch:NAdam")


@pytest.mark.parametrize("name", ["torch:NAdam", "timm:lion", "pytorch_optimizer:Adan", "my_package.my_module:Mine_2"])
def test_module_and_name(name: str) -> None:
    check_form("optimizer", name)


@pytest.mark.parametrize(
    "name", ["torch:", ":NAdam", "torch:a:b", "my-package:Mine", "../x:Mine", "a..b:C", "torch:NAdam\n", "a.b:c.d"]
)
def test_other_forms_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="no name of an optimizer; write MODULE:NAME"):
        check_form("optimizer", name)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("torch:NAdam", "NAdam"),
        ("my_package.hybrid:make", "hybrid"),
        ("my_package:make_muon", "muon"),
        ("torch:Adam", "torch:Adam"),  # the catalog's own is Adam
        ("torch:RMSprop", "torch:RMSprop"),
        ("timm:adamw", "timm:adamw"),
    ],
)
def test_labels(name: str, label: str) -> None:
    assert default_label(name) == label


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("my_package:make_network", "network"),
        ("my_package.nets:Small", "Small"),
        ("my_package:resnet18", "my_package:resnet18"),  # the catalog's own is ResNet-18
        ("torchvision:resnet18", "torchvision:resnet18"),
        ("timm:resnet10t", "timm:resnet10t"),
    ],
)
def test_labels_of_networks(name: str, label: str) -> None:
    check_form("model", name, "model")
    assert default_label(name, "model") == label
    assert is_own_network(name) == name.startswith("my_package")
