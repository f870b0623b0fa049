"""timm's factory makes both optimizers by name."""

import pytest
import timm.optim
import torch
from torch import nn

from adarem import AdaRem, AdaRemS
from adarem.optim import param_groups, register_timm


def test_timm_knows_them_by_name(caplog: pytest.LogCaptureFixture) -> None:
    register_timm()
    register_timm()
    assert not caplog.records
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    a = timm.optim.create_optimizer_v2(model, opt="adarem", lr=0.1, weight_decay=0.01, beta=0.8)
    assert type(a) is AdaRem and a.param_groups[0]["beta"] == 0.8
    assert {g["weight_decay"] for g in a.param_groups} == {0.0, 0.01}
    s = timm.optim.create_optimizer_v2(
        model,
        opt="adarems",
        lr=0.1,
        param_group_fn=lambda m: param_groups(m, torch.zeros(2, 1, 8, 8), weight_decay=0.01),
    )
    assert type(s) is AdaRemS and s.param_groups[0]["spherical"]
    assert "adarem" in timm.optim.list_optimizers()
