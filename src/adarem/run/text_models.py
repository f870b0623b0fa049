"""The config of language models that carry no state from window to window: the GPT, and those that are imported."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from adarem.run.build import KEY, LATER, REST
from adarem.run.errors import UserError
from adarem.run.imported_names import is_own_network
from adarem.run.setting import AT_LEAST_1, SHARE_BELOW_1, Setting, Value


@dataclass(frozen=True)
class GptConfig:
    """A small GPT: torch's own encoder layers under a causal mask."""

    kind: Literal["text"]
    name: Literal["gpt"]
    label: Annotated[str, Setting("as printed; its size is part of it where none is given")]
    layers: Annotated[int, Setting("blocks of attention and feed-forward", AT_LEAST_1)]
    heads: Annotated[int, Setting("of attention; they divide the width", AT_LEAST_1)]
    width: Annotated[int, Setting("of the word vectors; a fourth of the feed-forward's", AT_LEAST_1, "units")]
    context: Annotated[int, Setting("length of a window: no word sees more words before it", AT_LEAST_1, "tokens")]
    dropout: Annotated[float, Setting("of embeddings, attention, and both branches", SHARE_BELOW_1)]


@dataclass(frozen=True)
class LmConfig:
    """A language model that is imported; the settings of its signature are keys next to its name."""

    kind: Literal["text"]
    name: Annotated[str, Setting("MODULE:NAME of a function or class; or a name of yours")]
    label: Annotated[str, Setting("as printed")]
    settings: Mapping[str, Value] = field(default_factory=dict, metadata={REST: True})
    context: Annotated[int, Setting("length of a window: no word sees more words before it", AT_LEAST_1, "tokens")] = 64
    source: Annotated[str | None, Setting("MODULE:NAME, where it is imported from and the name is one of yours")] = (
        field(default=None, metadata={KEY: "class", LATER: True})
    )

    @property
    def imported(self) -> str | None:
        """Where it is imported from, ``my_package:make_lm``."""
        return self.source or (self.name if is_own_network(self.name) else None)


def default_gpt_label(layers: object, width: object) -> str:
    """``GPT 4 x 128``: blocks and width."""
    return f"GPT {layers} x {width}"


def check_gpt(m: GptConfig) -> None:
    """Raises UserError for settings that do not fit each other."""
    if m.width % m.heads:
        raise UserError(f"model.heads={m.heads}: does not divide model.width={m.width}; take a divisor")
