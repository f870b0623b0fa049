"""Parameter groups: the scale-invariant parameters are found, and every parameter is in one group."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import Tensor, fx, nn

from adarem.optim import param_groups, scale_invariant
from adarem.optim.groups import kinds_of_parameters

SIX = {
    "resnet18": lambda: torchvision.models.resnet18(),
    "resnet50": lambda: torchvision.models.resnet50(),
    "mobilenet_v2_1_0": lambda: torchvision.models.mobilenet_v2(width_mult=1.0),
    "mobilenet_v2_0_5": lambda: torchvision.models.mobilenet_v2(width_mult=0.5),
    "shufflenet_v2_1_0": lambda: torchvision.models.shufflenet_v2_x1_0(),
    "shufflenet_v2_0_5": lambda: torchvision.models.shufflenet_v2_x0_5(),
}


def feeds_batchnorm(model: nn.Module) -> set[str]:
    """By structure: weights of convolutions whose output goes into BatchNorm and nowhere else."""
    graph, modules = fx.symbolic_trace(model).graph, dict(model.named_modules())

    def is_a(node: fx.Node, kind: type[nn.Module]) -> bool:
        return node.op == "call_module" and isinstance(modules[node.target], kind)

    return {
        f"{node.target}.weight"
        for node in graph.nodes
        if is_a(node, nn.Conv2d) and node.users and all(is_a(u, nn.BatchNorm2d) for u in node.users)
    }


@pytest.mark.parametrize("name", SIX)
def test_found_parameters_agree_with_the_structure(name: str) -> None:
    torch.manual_seed(0)
    model = SIX[name]()
    found = scale_invariant(model, torch.zeros(1, 3, 64, 64))
    assert set(found) == feeds_batchnorm(model)
    assert len(found) == len(set(found)) >= 20


def test_the_search_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = torchvision.models.shufflenet_v2_x0_5()
    model.conv1[1].eval()
    model.conv1[0].weight.grad = torch.ones_like(model.conv1[0].weight)
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    rng = torch.get_rng_state()
    scale_invariant(model, torch.zeros(1, 3, 32, 32))
    assert torch.equal(rng, torch.get_rng_state())
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert (model.conv1[0].weight.grad == 1).all()
    assert model.conv5[0].weight.grad is None
    assert all(m.eps == 1e-5 for m in model.modules() if isinstance(m, nn.BatchNorm2d))


class Awkward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)  # its bias has no gradient at all
        self.norm = nn.BatchNorm2d(6)
        self.twice = nn.Conv2d(6, 6, 1)  # feeds BatchNorm and a sum
        self.norm2 = nn.BatchNorm2d(6)
        self.frozen = nn.Conv2d(6, 6, 1).requires_grad_(False)
        self.norm3 = nn.BatchNorm2d(6)
        self.unused = nn.Conv2d(6, 6, 1)
        self.linear = nn.Linear(6, 4, bias=False)
        self.norm4 = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)
        nn.init.zeros_(self.norm4.weight)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.conv(x)).relu()
        y = self.twice(x)
        x = self.norm3(self.frozen(y + self.norm2(y)))
        return {"logits": self.norm4(self.linear(self.dropout(x).mean((2, 3))))}


def test_numbers_decide_where_structure_misleads() -> None:
    model = Awkward()
    assert scale_invariant(model, torch.zeros(1, 3, 16, 16)) == ["conv.weight", "linear.weight"]


def test_no_normalisation_nothing_found() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 2))
    assert scale_invariant(model, torch.zeros(2, 4)) == []


def test_groups_cover_each_parameter_once_and_name_it() -> None:
    model = Awkward()
    groups = param_groups(model, torch.zeros(1, 3, 16, 16), weight_decay=0.1, decay_norm_and_bias=False)
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    listed = {n: p for g in groups for n, p in zip(g["param_names"], g["params"], strict=True)}
    assert listed.keys() == named.keys() and all(listed[n] is named[n] for n in named)
    assert sum(len(g["params"]) for g in groups) == len(named)
    by = {n: g for g in groups for n in g["param_names"]}
    assert by["conv.weight"]["spherical"] and by["linear.weight"]["spherical"]
    assert not by["twice.weight"]["spherical"] and by["twice.weight"]["weight_decay"] == 0.1
    assert by["norm.weight"]["weight_decay"] == by["conv.bias"]["weight_decay"] == 0.0
    assert len(groups) == 3


def test_without_example_input_no_group_is_marked() -> None:
    (group,) = param_groups(nn.Linear(2, 2), weight_decay=0.1)
    assert "spherical" not in group and group["weight_decay"] == 0.1


def test_kinds_go_by_module_and_name_and_not_by_dimensions() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(5, 4)
            self.pos_embed = nn.Parameter(torch.zeros(1, 3, 4))
            self.norm = nn.LayerNorm((3, 4))
            self.scale = nn.Parameter(torch.ones(4))
            self.lstm = nn.LSTM(4, 4)
            self.attention = nn.MultiheadAttention(4, 2)
            self.normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
            self.out = nn.Linear(4, 5)
            self.out.weight = self.words.weight

    model = Own()
    kinds = kinds_of_parameters(model)
    assert kinds.keys() == dict(model.named_parameters()).keys()
    found = {kind: {n for n, of in kinds.items() if kind in of} for kind in ("norm", "bias", "embedding")}
    assert found == {
        "norm": {"norm.weight", "norm.bias"},
        "bias": {
            "norm.bias", "lstm.bias_ih_l0", "lstm.bias_hh_l0", "attention.in_proj_bias", "attention.out_proj.bias",
            "normed.bias", "out.bias",
        },
        "embedding": {"words.weight", "pos_embed"},
    }  # fmt: skip
    for no_decay in (["bias"], ["norm", "embedding"]):
        groups = param_groups(model, weight_decay=0.1, no_decay=no_decay)
        free = {n for g in groups if g["weight_decay"] == 0.0 for n in g["param_names"]}
        assert free == set().union(*(found[kind] for kind in no_decay)) and len(groups) == 2


def test_kinds_in_networks_of_libraries() -> None:
    """A normalisation's class is known by its name where it is none of torch's; a layer's gain is neither."""
    model = timm.create_model("convnextv2_atto", num_classes=3)
    kinds = kinds_of_parameters(model)
    assert kinds["stages.0.blocks.0.mlp.grn.weight"] == {"norm"}
    assert kinds["stages.0.blocks.0.norm.bias"] == {"norm", "bias"}
    assert kinds["stages.0.blocks.0.conv_dw.weight"] == set()
