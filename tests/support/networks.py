"""A user's own module of networks, good ones and bad ones."""

from pathlib import Path

_MODULE = '''
"""Networks of a user's own."""
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self, num_classes, width=8, depth=2, act="relu"):
        super().__init__()
        convs = [nn.Conv2d(3 if i == 0 else width, width, 3, stride=2, padding=1) for i in range(depth)]
        self.body = nn.Sequential(*(layer for conv in convs for layer in (conv, nn.BatchNorm2d(width), nn.ReLU())))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Paired(Small):
    def forward(self, x):
        return super().forward(x), x


class Squeezed(Small):
    def forward(self, x):
        return super().forward(x).squeeze()


class Asking(Small):
    """Reads a value of its input, which the meta device has not."""

    def forward(self, x):
        return super().forward(x if x.mean().item() < 9 else -x)


class Unused(Small):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.extra = nn.Linear(3, 3)


def make_network(num_classes, *, width=16):
    return Small(num_classes, width)


def make_required(num_classes, rank):
    return Small(num_classes, rank)


def make_nothing(num_classes):
    return None


def make_fixed(num_classes):
    return Small(1000)


def make_wide(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 40), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))


def make_frozen(num_classes):
    return Small(num_classes).requires_grad_(False)


def make_broken(num_classes):
    raise ValueError("no such width")


def make_without(classes):
    return Small(classes)


class Lm(nn.Module):
    """A language model: int64 [windows, words] to scores."""

    def __init__(self, vocabulary, width=8, first=True, both=False):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.layer = nn.GRU(width, width, batch_first=first, bidirectional=both)
        self.scores = nn.Linear(2 * width if both else width, vocabulary)

    def forward(self, tokens):
        return self.scores(self.layer(self.words(tokens))[0])


def make_lm_of_few(vocabulary):
    return Lm(100)


def make_lm_of_columns(vocabulary):
    return Lm(vocabulary, first=False)


def make_lm_that_peeks(vocabulary):
    return Lm(vocabulary, both=True)


class NoNetwork:
    pass


number = 3
'''


def write_networks(folder: Path, name: str) -> Path:
    """Writes ``<name>.py`` and returns its path."""
    path = folder / f"{name}.py"
    path.write_text(_MODULE)
    return path
