"""scale_invariant against numbers: each weight is scaled in float64, and the output in training tells."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import weight_norm as old_weight_norm

from adarem import AdaRemS
from adarem.optim import invariance, param_groups, scale_invariant

CONV = (4, 3, 8, 8)  # the shape of images
FLAT = (8, 6)


def leaves(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() or output.is_complex() else []
    if output is None:
        return []
    if dataclasses.is_dataclass(output) and not isinstance(output, dict):
        output = vars(output)
    return [leaf for item in (output.values() if hasattr(output, "values") else output) for leaf in leaves(item)]


def truth(model: nn.Module, example: Any) -> list[str]:
    """The weights that can be made three times as long and leave the output as it is, up to eps. Spoils the model."""
    for t in [*model.parameters(), *model.buffers()]:
        t.data = t.data.to(torch.complex128 if t.is_complex() else torch.float64 if t.is_floating_point() else t.dtype)
    torch.manual_seed(5)
    example = {
        key: torch.randn_like(x, dtype=torch.complex128 if x.is_complex() else torch.float64) * 3
        if x.is_floating_point() or x.is_complex()
        else x
        for key, x in (example if isinstance(example, dict) else {"": example}).items()
    }
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(torch.randn_like(p) * 0.5)

    buffers = [b.clone() for b in model.buffers()]

    def outputs() -> list[Tensor]:
        for b, value in zip(model.buffers(), buffers, strict=True):
            b.data.copy_(value)
        with torch.no_grad():
            return leaves(model(example[""]) if "" in example else model(**example))

    before, found = outputs(), []
    for name, p in model.named_parameters():
        if p.requires_grad and p.dim() > 1:
            value = p.detach().clone()
            p.data.mul_(3)
            after = outputs()
            p.data.copy_(value)
            used = [(a - b).norm() for a, b in zip(after, before, strict=True)]
            whole = sum(b.norm() for b in before)
            p.data.normal_()
            seen = any((a - b).norm() > 1e-2 * b.norm() for a, b in zip(outputs(), before, strict=True))
            p.data.copy_(value)
            if sum(used) < 1e-3 * whole and seen:
                found.append(name)
    return found


def stack(norm: nn.Module, bias: bool = False) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 6, 3, bias=bias), norm, nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3))


def frozen(model: nn.Module, index: int) -> nn.Module:
    model[index].eval()
    return model


def without_grad(model: nn.Module, *names: str) -> nn.Module:
    for name, p in model.named_parameters():
        p.requires_grad_(name not in names)
    return model


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias)


class Functional(nn.Module):
    """Normalises in a function, with an eps that no attribute holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8, bias=False), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.layer_norm(self.first(x), (8,), eps=1e-3).relu())


class InFloat32(nn.Module):
    """Computes its norm in float32, as the RMSNorms of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8, bias=False), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        wide = x.to(torch.float32)
        return self.head((wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype))


class Residual(nn.Module):
    """The first layer is in front of normalisations, but in sums: long, it outweighs the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.head = nn.Linear(6, 8, bias=False), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(self.norms[1](x + self.inner(self.norms[0](x)).relu()))


class LastInEval(nn.Module):
    """Keeps its BatchNorm frozen whatever is called."""

    def __init__(self) -> None:
        super().__init__()
        self.body = stack(nn.BatchNorm2d(6))

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.body[1].eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Tied(nn.Module):
    """The same weight in front of a normalisation and as the head."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6), nn.Linear(6, 6)
        if shared:
            self.head.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.first(x)).relu())


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm, self.head = nn.Embedding(11, 5), nn.LayerNorm(5), nn.Linear(5, 11, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.words(ids)))


class Turning(nn.Module):
    """The way through it depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x))
        return self.head(y.relu() if x.sum() > -1e9 else y)


class Complex(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.weight, self.norm = nn.Parameter(torch.randn(6, 4, dtype=torch.complex64)), norm
        self.head = nn.Parameter(torch.randn(4, 2, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(self.weight.dtype) @ self.weight
        return (y / y.abs().pow(2).mean().sqrt() if self.norm else y) @ self.head


@dataclasses.dataclass
class Answer:
    logits: Tensor
    ids: Tensor
    features: tuple[Tensor, ...]


class Several(nn.Module):
    """Two inputs by name, three outputs in a dataclass, one of them before the BatchNorm."""

    def __init__(self, features: bool) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 4, bias=False), nn.Linear(3, 4, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm1d(4), nn.BatchNorm1d(4)])
        self.head, self.features = nn.Linear(4, 2), features

    def forward(self, a: Tensor, b: Tensor) -> Answer:
        left, right = self.left(a), self.right(b)
        out = self.head(self.norms[0](left) + self.norms[1](right).relu())
        return Answer(out, out.argmax(1), (right,) if self.features else ())


IMAGES, ROWS = torch.zeros(CONV), torch.zeros(FLAT)
CASES: dict[str, tuple[Callable[[], nn.Module], Any, list[str]]] = {
    "BatchNorm": (lambda: stack(nn.BatchNorm2d(6), bias=True), IMAGES, ["0.weight"]),
    "BatchNorm, frozen": (lambda: frozen(stack(nn.BatchNorm2d(6)), 1), IMAGES, []),
    "BatchNorm in eval without running statistics": (
        lambda: frozen(stack(nn.BatchNorm2d(6, track_running_stats=False)), 1), IMAGES, ["0.weight"],
    ),
    "BatchNorm, not affine": (lambda: stack(nn.BatchNorm2d(6, affine=False)), IMAGES, ["0.weight"]),
    "BatchNorm, its parameters frozen": (
        lambda: without_grad(stack(nn.BatchNorm2d(6)), "1.weight", "1.bias"), IMAGES, ["0.weight"],
    ),
    "BatchNorm, the weight frozen": (lambda: without_grad(stack(nn.BatchNorm2d(6)), "0.weight"), IMAGES, []),
    "BatchNorm, the head alone trains": (
        lambda: without_grad(stack(nn.BatchNorm2d(6)), "0.weight", "1.weight", "1.bias"), IMAGES, [],
    ),
    "BatchNorm over one pixel": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 8), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 2)), IMAGES,
        ["0.weight"],
    ),
    "SyncBatchNorm": (lambda: stack(nn.SyncBatchNorm(6)), IMAGES, ["0.weight"]),
    "a train() of its own freezes": (lambda: LastInEval().train(), IMAGES, []),
    "GroupNorm": (lambda: stack(nn.GroupNorm(2, 6)), IMAGES, ["0.weight"]),
    "GroupNorm after a bias": (lambda: stack(nn.GroupNorm(2, 6), bias=True), IMAGES, []),
    "InstanceNorm": (lambda: stack(nn.InstanceNorm2d(6), bias=True), IMAGES, ["0.weight"]),
    "InstanceNorm, frozen": (
        lambda: frozen(stack(nn.InstanceNorm2d(6, track_running_stats=True)), 1), IMAGES, [],
    ),
    "LayerNorm": (lambda: stack(nn.LayerNorm((6, 6, 6), eps=1e-3)), IMAGES, ["0.weight"]),
    "RMSNorm": (
        lambda: nn.Sequential(nn.Linear(6, 8, bias=False), nn.RMSNorm(8), nn.Linear(8, 3)), ROWS, ["0.weight"],
    ),
    "layer_norm as a function": (Functional, ROWS, ["first.weight"]),
    "a norm in float32": (InFloat32, ROWS, ["first.weight"]),
    "in front of a sum": (Residual, ROWS, []),
    "weight_norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 2)), ROWS,
        ["0.parametrizations.weight.original1"],
    ),
    "weight_norm by a hook": (
        lambda: nn.Sequential(old_weight_norm(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 2)), ROWS, ["0.weight_v"],
    ),
    "spectral_norm": (
        lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 2)), ROWS,
        ["0.parametrizations.weight.original"],
    ),
    "pruned": (
        lambda: nn.Sequential(
            prune.random_unstructured(nn.Linear(6, 8), "weight", 0.2), nn.BatchNorm1d(8), nn.Linear(8, 2)
        ),
        ROWS, ["0.weight_orig"],
    ),
    "weight standardisation": (
        lambda: nn.Sequential(Standardised(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 2)), IMAGES,
        ["0.weight"],
    ),
    "no normalisation": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), ROWS, []),
    "embedding in front of LayerNorm": (Words, torch.arange(10).view(2, 5), ["words.weight"]),
    "tied": (lambda: Tied(shared=True), ROWS, []),
    "not tied": (lambda: Tied(shared=False), ROWS, ["first.weight"]),
    "control flow": (Turning, ROWS, ["first.weight"]),
    "complex": (lambda: Complex(norm=False), ROWS, []),
    "complex, normalised": (lambda: Complex(norm=True), ROWS, ["weight"]),
    "inputs by name": (
        lambda: Several(features=False), {"a": ROWS, "b": torch.zeros(8, 3)}, ["left.weight", "right.weight"],
    ),
    "an output before the BatchNorm": (
        lambda: Several(features=True), {"a": ROWS, "b": torch.zeros(8, 3)}, ["left.weight"],
    ),
    "bfloat16": (lambda: stack(nn.BatchNorm2d(6)).bfloat16(), IMAGES.bfloat16(), ["0.weight"]),
    "float16": (lambda: stack(nn.BatchNorm2d(6)).half(), IMAGES.half(), ["0.weight"]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("name", CASES)
def test_what_is_found_is_what_the_output_does_not_see(name: str) -> None:
    make, example, expected = CASES[name]
    torch.manual_seed(0)
    assert scale_invariant(make(), example) == expected
    assert truth(make(), example) == expected


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("name", CASES)
def test_a_second_look_at_every_weight_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, example, expected = CASES[name]
    monkeypatch.setattr(invariance, "_SMALL", 1e9)
    assert scale_invariant(make(), example) == expected


def test_a_model_in_eval_mode_is_asked_as_a_training_loop_asks_it() -> None:
    assert scale_invariant(stack(nn.BatchNorm2d(6)).eval(), IMAGES) == ["0.weight"]
    assert scale_invariant(LastInEval().eval(), IMAGES) == []
    assert scale_invariant(LastInEval(), IMAGES) == []  # not frozen yet, but from the first train() on
    half = nn.Sequential(stack(nn.BatchNorm2d(6)).eval(), nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert scale_invariant(half, IMAGES) == ["0.4.weight", "1.weight"]  # 0.0 is in front of a frozen one


def test_nothing_to_train_nothing_found() -> None:
    assert scale_invariant(nn.ReLU(), ROWS) == param_groups(nn.ReLU(), ROWS) == []
    still = stack(nn.BatchNorm2d(6)).requires_grad_(False)
    assert scale_invariant(still, IMAGES) == param_groups(still, IMAGES) == []


@pytest.mark.parametrize("how", ["compiled", "compiled in place", "a compiled part", "scripted", "traced"])
def test_a_compiled_or_scripted_model_gives_the_names_of_the_model(how: str) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(*(nn.Dropout(0.5), *stack(nn.BatchNorm2d(6), bias=True)))
    names = ["1.weight"]
    if how == "compiled":
        model, names = torch.compile(model, backend="eager"), ["_orig_mod.1.weight"]
    elif how == "compiled in place":
        model.compile(backend="eager")
    elif how == "a compiled part":
        model, names = nn.Sequential(torch.compile(model, backend="eager")), ["0._orig_mod.1.weight"]
    else:
        model = torch.jit.script(model) if how == "scripted" else torch.jit.trace(model, IMAGES, check_trace=False)
    assert scale_invariant(model, IMAGES) == names
    by = {n: g["spherical"] for g in param_groups(model, IMAGES) for n in g["param_names"]}
    assert [n for n, spherical in by.items() if spherical] == names
    assert by.keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize("name", ["googlenet", "resnet18 of timm, with drop path", "vit", "ResNet of transformers"])
def test_networks_of_libraries(name: str) -> None:
    torch.manual_seed(0)
    if name == "googlenet":  # has a second output in training
        model, example = torchvision.models.googlenet(init_weights=False), torch.zeros(1, 3, 64, 64)
    elif name == "vit":
        model, example = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2), torch.zeros(1, 3, 32, 32)
    elif name.startswith("resnet18"):
        model, example = timm.create_model("resnet18", drop_path_rate=0.9, drop_rate=0.5), torch.zeros(1, 3, 64, 64)
    else:
        from transformers import ResNetConfig, ResNetForImageClassification

        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
        model, example = ResNetForImageClassification(config).eval(), {"pixel_values": torch.zeros(1, 3, 32, 32)}
    found = scale_invariant(model, example)
    convs = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert set(found) == (set() if name == "vit" else convs)


class Failing(nn.Module):
    """Takes what the first layer takes, and does with its output what a test asks."""

    def __init__(self, after: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.first, self.norm, self.after = nn.Linear(6, 4), nn.BatchNorm1d(4), after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.norm(self.first(x)))


class Uncopyable(nn.Linear):
    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        raise TypeError("cannot pickle 'socket' object\nfor a reason")


BY_HAND = r"name the weights in front of its normalisations yourself: param_groups\(model, spherical=names\)$"
REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "wrong size": (
        lambda: Failing(Tensor.relu), torch.zeros(2, 5),
        r"^example_input: the model's forward pass in float64 on input of shape \(2, 5\) fails: RuntimeError: .*5.*; ",
    ),
    "not for float64": (
        lambda: Failing(lambda x: x @ torch.ones(4, 2)), ROWS, r"in float64 on .*(float|Double).*" + BY_HAND,
    ),
    "another name": (
        lambda: Several(False), {"a": ROWS, "c": ROWS}, r"fails: TypeError: .*unexpected keyword argument 'c'",
    ),
    "no tensor": (
        lambda: Failing(lambda x: x.argmax(1)), ROWS, r"^model: no tensor in its output depends on a trainable param",
    ),
    "not finite": (lambda: Failing(lambda x: (x.abs() + 1).neg().log()), ROWS, r"is not finite; " + BY_HAND),
    "one row of integers": (
        lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.BatchNorm1d(8)), torch.ones(1, 2, dtype=torch.long),
        r"fails: ValueError: Expected more than 1 value per channel",
    ),
    "no copy": (
        lambda: nn.Sequential(Uncopyable(6, 2)), ROWS, r"^model: copy.deepcopy of it fails: TypeError: .*" + BY_HAND,
    ),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(4), nn.BatchNorm1d(4)), ROWS,
        r"^model: lazy parameter '0.weight' has no shape yet; run a batch through the model first$",
    ),
    "meta": (
        lambda: stack(nn.BatchNorm2d(6)).to("meta"), IMAGES,
        r"^model: parameter '0.weight' is on the meta device, .*; call this on a model built on a real device",
    ),
    "integers on meta": (Words, torch.zeros(2, 5, dtype=torch.long, device="meta"), "^example_input: integers on"),
}  # fmt: skip


def traces(model: nn.Module) -> list[object]:
    """What must be as it was: values, gradients, versions, modes, hooks, random state."""
    return [
        [(n, None if t.device.type == "meta" else t.detach().clone().double().tolist()) for n, t in tensors(model)],
        [(n, id(t), t.dtype, t._version, t.requires_grad) for n, t in tensors(model)],
        [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        [(m.training, vars(m).get("eps"), list(m._forward_hooks), list(m._forward_pre_hooks)) for m in model.modules()],
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    ]


def tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return [(n, t) for n, t in named if not nn.parameter.is_lazy(t)]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_found_is_one_line_and_leaves_no_trace(name: str) -> None:
    make, example, line = REFUSED[name]
    torch.manual_seed(0)
    model = make()
    before = traces(model)
    with torch.no_grad(), pytest.raises(ValueError) as said:
        param_groups(model, example)
    assert re.search(line, str(said.value)) and "\n" not in str(said.value), said.value
    assert traces(model) == before


@pytest.mark.parametrize("name", ["BatchNorm", "BatchNorm, frozen", "InstanceNorm, frozen", "spectral_norm", "float16"])
def test_the_search_leaves_no_trace(name: str) -> None:
    make, example, expected = CASES[name]
    model = make()
    called: list[int] = []
    model.register_forward_hook(lambda *_: called.append(1))
    first = next(p for p in model.parameters() if p.requires_grad)
    first.grad = torch.ones_like(first)
    first.register_hook(lambda g: called.append(2))
    before = traces(model)
    with torch.autocast("cpu"), torch.inference_mode():  # the caller's modes do not decide
        assert scale_invariant(model, example) == expected
    assert traces(model) == before and 2 not in called


def test_device_and_values_of_a_floating_example_do_not_count() -> None:
    model = stack(nn.BatchNorm2d(6))
    assert scale_invariant(model, torch.full((1, 3, 8, 8), torch.nan, device="meta")) == ["0.weight"]
    with torch.device("meta"):
        assert scale_invariant(model, IMAGES) == ["0.weight"]


def test_a_tuple_is_several_inputs() -> None:
    model = Several(False)
    assert scale_invariant(model, (ROWS, torch.zeros(8, 3))) == ["left.weight", "right.weight"]


def test_names_make_groups_without_an_example() -> None:
    model = stack(nn.BatchNorm2d(6))
    names = scale_invariant(model, IMAGES)
    given, found = param_groups(model, spherical=names, weight_decay=0.1), param_groups(model, IMAGES, weight_decay=0.1)
    assert [(g["spherical"], g["param_names"]) for g in given] == [(g["spherical"], g["param_names"]) for g in found]
    assert [g["spherical"] for g in param_groups(model, spherical=[])] == [False]
    AdaRemS(given, lr=0.1, decay_every=1)
    for wrong, line in {
        ("0.weigth",): "no trainable parameter has the name '0.weigth'; the nearest is '0.weight'",
        "0.weight": "spherical: '0.weight' is one name; give a list of names",
    }.items():
        with pytest.raises(ValueError, match=line):
            param_groups(model, spherical=wrong)
    with pytest.raises(ValueError, match="an example_input finds these names too; give one of the two"):
        param_groups(model, IMAGES, spherical=names)
    with pytest.raises(ValueError, match="lazy parameter .* has no shape yet"):
        param_groups(nn.LazyLinear(3))


@pytest.fixture
def process_group() -> Iterator[None]:
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_a_wrapped_model_gives_the_names_of_the_wrapped_and_a_sharded_one_is_refused() -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    def ddp() -> nn.Module:
        return nn.parallel.DistributedDataParallel(stack(nn.BatchNorm2d(6)))

    assert scale_invariant(ddp(), IMAGES) == ["module.0.weight"]
    assert scale_invariant(torch.compile(ddp(), backend="eager"), IMAGES) == ["_orig_mod.module.0.weight"]
    assert scale_invariant(nn.parallel.DistributedDataParallel(stack(nn.BatchNorm2d(6)).eval()), IMAGES) == [
        "module.0.weight"
    ]
    sharded = stack(nn.BatchNorm2d(6))
    names = scale_invariant(sharded, IMAGES)
    fully_shard(sharded)
    remedy = r"; find the names before and give them later: param_groups\(model, spherical=names\)$"
    with pytest.raises(ValueError, match=r"^model: parameter '0.weight' is a DTensor, a part of a weight" + remedy):
        param_groups(sharded, IMAGES)
    assert [g["param_names"] for g in param_groups(sharded, spherical=names) if g["spherical"]] == [["0.weight"]]
    flat = FullyShardedDataParallel(stack(nn.BatchNorm2d(6)), device_id=torch.device("cpu"))
    with pytest.raises(ValueError, match="^model: FullyShardedDataParallel has flattened its parameters" + remedy):
        scale_invariant(flat, IMAGES)
