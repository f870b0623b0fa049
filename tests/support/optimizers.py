"""A user's own module of optimizers, good ones and bad ones."""

from pathlib import Path

_MODULE = '''
"""Optimizers of a user's own."""
import os

import torch


class Mine(torch.optim.SGD):
    """SGD under another name, with settings of every kind; it swallows what it does not know."""

    def __init__(self, params, lr, weight_decay=3e-4, betas=(0.9, 0.99), mode="plain", warm=False, cap=None, **kwargs):
        if betas[0] >= 1:
            raise ValueError(f"betas: {betas[0]} is no share")
        super().__init__(params, lr=lr, momentum=betas[0], weight_decay=weight_decay)


class Named(torch.optim.SGD):
    def __init__(self, params, *, lr, rank):
        super().__init__(params, lr=lr)


class Closed(torch.optim.SGD):
    def step(self, closure):
        return super().step(closure)


class ClosedWhenAsked(torch.optim.SGD):
    def step(self, closure=None):
        if closure is None:
            raise RuntimeError("ClosedWhenAsked needs a closure")


class Flat(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        if any(p.dim() != 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("only matrices")


class Switching(torch.optim.SGD):
    def train(self):
        pass

    def eval(self):
        pass


class NoWayBack(Switching):
    @torch.no_grad()
    def eval(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(0.5)


class FailsToSwitch(Switching):
    def eval(self):
        raise RuntimeError("no average")


class NotFinite(Switching):
    @torch.no_grad()
    def eval(self):
        self.param_groups[0]["params"][0].fill_(float("nan"))


class Quitting(torch.optim.SGD):
    def __init__(self, params, lr):
        os._exit(3)


class Unsafe(torch.optim.SGD):
    def step(self, closure=None):
        super().step()
        self.param_groups[0]["when"] = __import__("datetime").datetime.now()


def make(model, *, lr, weight_decay=0.01, steps_per_epoch, total_steps, share=0.1):
    """Two groups, each with a rate of its own."""
    assert 0 < steps_per_epoch <= total_steps
    weights = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": weights}, {"params": rest, "lr": share * lr}]
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=weight_decay)


def make_averaging(model, *, lr):
    return Switching(model.parameters(), lr=lr)


def make_nothing(model, *, lr):
    return None


def make_some(model, *, lr):
    return torch.optim.SGD(list(model.parameters())[:3], lr=lr)


def make_without_rate(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


number = 3
'''


def write_module(folder: Path, name: str = "own_optimizers") -> Path:
    """Writes ``<name>.py`` and returns its path."""
    path = folder / f"{name}.py"
    path.write_text(_MODULE)
    return path
