"""What a setting is: its meaning, its unit, and the values that it may have.

The fields of the config's dataclasses carry it in their types, ``Annotated[int, Setting("epochs of training", ...)]``;
the catalog has those of the optimizers' own settings. The checks of a config and the page of all
settings read it there.
"""

import math
from dataclasses import dataclass
from typing import Annotated, TypeAlias

Scalar: TypeAlias = str | int | float | bool
# Of a setting that a signature names: betas are a tuple, and some classes take a tuple of them.
Value: TypeAlias = str | int | float | bool | None | tuple[Scalar | None | tuple[Scalar | None, ...], ...]


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``, both included unless ``above`` or ``below`` leaves one out."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False  # low itself is left out
    below: bool = False  # high itself is left out

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float):
            return False
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if not (self.above or self.below) and self.high < math.inf:
            return f"{self.low:g} to {self.high:g}"
        low = f"a number above {self.low:g}" if self.above else f"{self.low:g} or more"
        high = f"below {self.high:g}" if self.below else f"at most {self.high:g}"
        return low if self.high == math.inf else f"{low}, {high}"


@dataclass(frozen=True)
class Choices:
    """One of these values."""

    values: tuple[str | bool, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return "one of " + ", ".join(str(v).lower() if isinstance(v, bool) else v for v in self.values)


@dataclass(frozen=True)
class Setting:
    """``allowed`` None: whatever the type admits."""

    meaning: str
    allowed: Range | Choices | None = None
    unit: str = ""


AT_LEAST_0 = Range(0)
AT_LEAST_1 = Range(1)
POSITIVE = Range(0, above=True)
SHARE = Range(0, 1)  # and probabilities
SHARE_BELOW_1 = Range(0, 1, below=True)

InitFile = Annotated[
    str | None, Setting("file of the weights to start from, of safetensors or torch.save; null: drawn from the seed")
]
ImportedFrom = Annotated[str | None, Setting("MODULE:NAME, where it is imported from and the name is one of yours")]
InitHash = Annotated[str | None, Setting("of that file, put in by plan: another file is another run")]
