"""Every optimizer of the catalog is built with the settings of its config, trains and resumes."""

import io
import math

import pytest
import torch
import yaml
from torch import nn

from adarem import AdaRem, AdaRemS
from adarem.run.catalog import OPTIMIZERS
from adarem.train.optimizers import build_optimizer
from tests.support import ROOT


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


X = torch.zeros(1, 1, 8, 8)


def hparams_of(name):
    """What configs/optimizer has."""
    settings = yaml.safe_load((ROOT / "configs" / "optimizer" / f"{name}.yaml").read_text())
    return {key: float(v) if isinstance(v, str) and "e" in v and v[0].isdigit() else v for key, v in settings.items()}


def build(name, model, hparams=None, **kwargs):
    known = OPTIMIZERS[name].hparams if name in OPTIMIZERS else {}
    hparams = {**{k: v for k, v in (hparams_of(name) if known else {}).items() if k in known}, **(hparams or {})}
    defaults = {"lr": 0.05, "weight_decay": 1e-3, "steps_per_epoch": 3, "example_input": X}
    return build_optimizer(name, model, hparams=hparams, **{**defaults, **kwargs})


def fit(model, optimizer, steps, start=0):
    losses = []
    for step in range(start, start + steps):
        draw = torch.Generator().manual_seed(step)
        x = torch.randn(16, 1, 8, 8, generator=draw)
        y = (x.mean((1, 2, 3)) > 0).long()
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 + math.cos(math.pi * step / 40)) / 2
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trains_and_resumes_bit_for_bit(name):
    model = network()
    optimizer = build(name, model)
    losses = fit(model, optimizer, 10)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    rest = fit(model, optimizer, 10, start=10)
    assert losses[-1] < losses[0]

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = network()
    resumed = build(name, again)
    again.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    assert fit(again, resumed, 10, start=10) == rest
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_groups_are_the_same_for_all(name):
    model = network()
    optimizer = build(name, model, decay_norm_and_bias=False)
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(decays) == 5
    for p in model.parameters():
        assert decays[id(p)] == (1e-3 if p.dim() > 1 else 0.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_kinds_of_parameters_without_decay(name):
    model = network()
    optimizer = build(name, model, no_decay=["bias"])
    free = {id(p) for g in optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]}
    assert free == {id(p) for n, p in model.named_parameters() if n.endswith("bias")}


def test_settings_reach_the_optimizer():
    model = network()
    o = build("adarem_s", model, hparams={"beta": 0.8, "lam": 0.9, "eps": 1e-6, "scope": "model", "sphere": "tensor"})
    expected = {"beta": 0.8, "lam": 0.9, "eps": 1e-6, "scope": "model", "sphere": "tensor", "decay_every": 3}
    assert isinstance(o, AdaRemS)
    assert all(g[k] == v for g in o.param_groups for k, v in expected.items())
    assert [g["spherical"] for g in o.param_groups] == [True, False]
    o = build("adarem", model)
    assert type(o) is AdaRem and o.defaults["decay_every"] == 3 and o.defaults["lam"] == 0.999
    assert build("adarem", model, hparams={"decay_every": "step"}).defaults["decay_every"] == 1
    o = build("sgdm", model, hparams={"momentum": 0.8, "nesterov": True})
    assert (o.defaults["momentum"], o.defaults["nesterov"], o.defaults["dampening"]) == (0.8, True, 0)
    assert build("sgd", model).defaults["momentum"] == 0
    o = build("adamw", model, hparams={"beta1": 0.8, "beta2": 0.99, "eps": 1e-6})
    assert isinstance(o, torch.optim.AdamW)
    assert o.defaults["betas"] == (0.8, 0.99) and o.defaults["eps"] == 1e-6
    o = build("adabound", model, hparams={"final_lr": 0.2})
    assert o.defaults["final_lr"] == 0.2 and o.defaults["weight_decouple"] is False
    o = build("rmsprop", model, hparams={"alpha": 0.9})
    assert o.defaults["alpha"] == 0.9 and o.defaults["momentum"] == 0


@pytest.mark.parametrize(
    "name, hparams, message",
    [
        ("sgdn", {}, "optimizer.name=sgdn: unknown optimizer; did you mean 'sgd"),
        ("sgdm", {"momentm": 1}, "optimizer.momentm: sgdm has no such setting; did you mean 'momentum'?"),
        ("adarem", {"lambda_": 1}, "optimizer.lambda_: adarem has no such setting; "),
        ("adarem", {"sphere": "model"}, "optimizer.sphere: adarem has no such setting"),
        ("adarem", {"beta": 2.0}, "Invalid beta value: 2.0"),
    ],
)
def test_mistakes_are_named(name, hparams, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        build(name, network(), hparams=hparams)


def test_a_missing_setting_is_named_but_the_one_that_old_configs_lack():
    hparams = {k: v for k, v in hparams_of("adarem").items() if k in OPTIMIZERS["adarem"].hparams}
    del hparams["decay_every"]
    o = build_optimizer("adarem", network(), lr=0.1, weight_decay=0, hparams=hparams, steps_per_epoch=7)
    assert o.defaults["decay_every"] == 7  # once an epoch, as before it was a setting
    with pytest.raises(ValueError, match="optimizer.momentum: missing; add it to the settings of sgdm"):
        build_optimizer("sgdm", network(), lr=0.1, weight_decay=0, hparams={}, steps_per_epoch=7)


def test_sphere_needs_an_example():
    with pytest.raises(ValueError, match="adarem_s needs example_input"):
        build("adarem_s", network(), example_input=None)


def test_adabound_is_the_authors_algorithm():
    """Against the formulas of Luo et al. 2019 with L2 weight decay, written out."""
    p = torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64, requires_grad=True)
    holder = nn.Module()
    holder.p = nn.Parameter(p.detach().clone())
    optimizer = build("adabound", holder, lr=0.004, weight_decay=0.1)
    theta, m, v = p.detach().clone(), torch.zeros(3).double(), torch.zeros(3).double()
    for t in range(1, 21):
        g = torch.randn(3, dtype=torch.float64)
        lr = 0.004 * (1 - t / 40)
        for group in optimizer.param_groups:
            group["lr"] = lr
        holder.p.grad = g.clone()
        optimizer.step()
        g = g + 0.1 * theta
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        final = 0.1 * lr / 0.004
        low, high = final * (1 - 1 / (1e-3 * t + 1)), final * (1 + 1 / (1e-3 * t))
        rate = lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) / (v.sqrt() + 1e-8)
        theta = theta - rate.clamp(low, high) * m
    torch.testing.assert_close(holder.p.detach(), theta, rtol=1e-6, atol=0)
