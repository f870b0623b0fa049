"""The config of language models: the AWD-LSTM, and those without a carried state, the GPT and imported ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from adarem.run.build import KEY, LATER, REST
from adarem.run.errors import UserError
from adarem.run.imported_names import is_own_network
from adarem.run.setting import (
    AT_LEAST_0,
    AT_LEAST_1,
    SHARE,
    SHARE_BELOW_1,
    ImportedFrom,
    InitFile,
    InitHash,
    Setting,
    Value,
)

Context = Annotated[int, Setting("length of a window: no word sees more words before it", AT_LEAST_1, "tokens")]


@dataclass(frozen=True)
class DropoutConfig:
    """Probabilities of the AWD-LSTM's dropouts; each draws one mask per batch."""

    words: Annotated[float, Setting("of complete words of the embedding", SHARE_BELOW_1)]
    input: Annotated[float, Setting("of the first layer's input", SHARE_BELOW_1)]
    hidden: Annotated[float, Setting("between layers", SHARE_BELOW_1)]
    output: Annotated[float, Setting("of the last layer's output", SHARE_BELOW_1)]
    recurrent: Annotated[float, Setting("of single hidden-to-hidden weights", SHARE_BELOW_1)]


@dataclass(frozen=True)
class LstmConfig:
    """The AWD-LSTM and what belongs to training it (Merity et al. 2017)."""

    kind: Literal["text"]
    name: Literal["awd_lstm"]
    label: Annotated[str, Setting("as the paper prints it")]
    layers: Annotated[int, Setting("LSTM layers", AT_LEAST_1)]
    hidden: Annotated[int, Setting("size of all layers but the last", AT_LEAST_1, "units")]
    embedding: Annotated[int, Setting("size of the word vectors and, tied, of the last layer", AT_LEAST_1, "units")]
    dropout: DropoutConfig
    bptt: Annotated[
        int,
        Setting("how far a gradient goes back on average; scales the rate by length / bptt", AT_LEAST_1, "time steps"),
    ]
    bptt_half: Annotated[float, Setting("probability that the length is drawn around half of bptt", SHARE)]
    bptt_deviation: Annotated[float, Setting("standard deviation of a length", AT_LEAST_0, "time steps")]
    bptt_least: Annotated[int, Setting("shortest length, at most bptt", AT_LEAST_1, "time steps")]
    activation_reg: Annotated[float, Setting("weight of the last layer's dropped output in the loss", AT_LEAST_0)]
    temporal_reg: Annotated[float, Setting("weight of the steps of the last layer's output in the loss", AT_LEAST_0)]
    clip: Annotated[float, Setting("largest norm of the gradient over all parameters; 0 clips nothing", AT_LEAST_0)]
    average_after: Annotated[
        int,
        Setting("NT-ASGD: average after so many epochs without a better validation; 0 never", AT_LEAST_0, "epochs"),
    ]
    init: InitFile = field(default=None, metadata={LATER: True})
    init_sha256: InitHash = field(default=None, metadata={LATER: True})


@dataclass(frozen=True)
class GptConfig:
    """A small GPT: torch's own encoder layers under a causal mask."""

    kind: Literal["text"]
    name: Literal["gpt"]
    label: Annotated[str, Setting("as printed; its size is part of it where none is given")]
    layers: Annotated[int, Setting("blocks of attention and feed-forward", AT_LEAST_1)]
    heads: Annotated[int, Setting("of attention; they divide the width", AT_LEAST_1)]
    width: Annotated[int, Setting("of the word vectors; a fourth of the feed-forward's", AT_LEAST_1, "units")]
    context: Context
    dropout: Annotated[float, Setting("of embeddings, attention, and both branches", SHARE_BELOW_1)]
    init: InitFile = field(default=None, metadata={LATER: True})
    init_sha256: InitHash = field(default=None, metadata={LATER: True})


@dataclass(frozen=True)
class LmConfig:
    """A language model that is imported; the settings of its signature are keys next to its name."""

    kind: Literal["text"]
    name: Annotated[str, Setting("MODULE:NAME of a function or class; or a name of yours")]
    label: Annotated[str, Setting("as printed")]
    settings: Mapping[str, Value] = field(default_factory=dict, metadata={REST: True})
    context: Context = 64
    source: ImportedFrom = field(default=None, metadata={KEY: "class", LATER: True})
    init: InitFile = field(default=None, metadata={LATER: True})
    init_sha256: InitHash = field(default=None, metadata={LATER: True})

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


def check_lstm(m: LstmConfig) -> None:
    """Raises UserError for settings that do not fit each other."""
    if m.bptt_least > m.bptt:
        raise UserError(f"model.bptt_least={m.bptt_least}: larger than model.bptt={m.bptt}")
