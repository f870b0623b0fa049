"""The AWD-LSTM language model: Merity, Keskar & Socher 2017, "Regularizing and Optimizing LSTM Language Models".

Built on torch.nn.LSTM, which is cuDNN's on CUDA. Every dropout is a mask drawn once per batch (section 4 of that
paper), and a batch's masks are a value of their own: with them a forward pass can be repeated exactly.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# (h, c) of each layer, [1, columns, size] each
Hidden = tuple[tuple[Tensor, Tensor], ...]

# A dropped recurrent matrix is a new tensor every step, so cuDNN's one flat chunk of weights cannot be kept.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")


class Masks(NamedTuple):
    """What a batch drops: 0 with the dropout's probability p, else 1 / (1 - p); None drops nothing."""

    words: Tensor | None  # [vocabulary, 1]: all of a word's embedding
    input: Tensor | None  # [1, columns, embedding]: the same at every time step, as the two below
    hidden: tuple[Tensor | None, ...]  # [1, columns, size] between two layers each
    output: Tensor | None  # [1, columns, embedding]
    recurrent: tuple[Tensor | None, ...]  # [4 size, size]: the hidden-to-hidden matrix of each layer

    def of_columns(self, start: int, stop: int) -> "Masks":
        """The masks of some columns of a batch; words and recurrent matrices are shared by all of them."""

        def cut(mask: Tensor | None) -> Tensor | None:
            return None if mask is None else mask[:, start:stop]

        return self._replace(input=cut(self.input), hidden=tuple(cut(m) for m in self.hidden), output=cut(self.output))


class Output(NamedTuple):
    logits: Tensor  # [time, columns, vocabulary]
    raw: Tensor  # [time, columns, embedding]: the last layer, before its dropout
    dropped: Tensor  # the same, after it
    hidden: Hidden  # after the last time step; still part of the graph


class WeightDropLSTM(nn.LSTM):
    """One LSTM layer whose recurrent matrix is multiplied by a mask, DropConnect on ``weight_hh_l0``."""

    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    # Inductor would unroll the time loop for each length; so the library's LSTM runs uncompiled.
    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch annotates no return type
    def forward(
        self, x: Tensor, hx: tuple[Tensor, Tensor], mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if mask is None:
            return super().forward(x, hx)
        weights = [self.weight_ih_l0, self.weight_hh_l0 * mask, self.bias_ih_l0, self.bias_hh_l0]
        out, h, c = torch.lstm(x, hx, weights, True, 1, 0.0, self.training, False, False)
        return out, (h, c)


class AwdLstm(nn.Module):
    """Embedding, LSTM layers, and a decoder that is the embedding transposed.

    Args:
        vocabulary: number of distinct words.
        embedding: size of the word vectors, and of the last layer's output.
        hidden: size of the other layers' output.
        layers: number of LSTM layers.
        dropout_words, dropout_input, dropout_hidden, dropout_output, dropout_recurrent: probabilities; see ``Masks``.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        embedding: int = 400,
        hidden: int = 1150,
        layers: int = 3,
        dropout_words: float = 0.0,
        dropout_input: float = 0.0,
        dropout_hidden: float = 0.0,
        dropout_output: float = 0.0,
        dropout_recurrent: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout_words, self.dropout_input = dropout_words, dropout_input
        self.dropout_hidden, self.dropout_output = dropout_hidden, dropout_output
        self.dropout_recurrent = dropout_recurrent
        sizes = [embedding, *[hidden] * (layers - 1), embedding]
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.layers = nn.ModuleList(WeightDropLSTM(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.decoder_bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    @property
    def _lstms(self) -> list[WeightDropLSTM]:
        return [layer for layer in self.layers if isinstance(layer, WeightDropLSTM)]

    def zero_hidden(self, columns: int) -> Hidden:
        """The state before the first word."""
        weight = self.embedding.weight

        def zeros(layer: nn.LSTM) -> Tensor:
            return weight.new_zeros(1, columns, layer.hidden_size)

        return tuple((zeros(layer), zeros(layer)) for layer in self._lstms)

    def draw_masks(self, columns: int, generator: torch.Generator | None = None) -> Masks:
        """Masks for a batch of ``columns`` columns, from ``generator`` or the device's own."""
        weight = self.embedding.weight

        def draw(p: float, *shape: int) -> Tensor | None:
            if p == 0.0:
                return None
            return torch.empty(shape, device=weight.device).bernoulli_(1.0 - p, generator=generator).div_(1.0 - p)

        vocabulary, embedding = weight.shape
        return Masks(
            words=draw(self.dropout_words, vocabulary, 1),
            input=draw(self.dropout_input, 1, columns, embedding),
            hidden=tuple(draw(self.dropout_hidden, 1, columns, layer.hidden_size) for layer in self._lstms[:-1]),
            output=draw(self.dropout_output, 1, columns, embedding),
            recurrent=tuple(draw(self.dropout_recurrent, *layer.weight_hh_l0.shape) for layer in self._lstms),
        )

    def forward(self, tokens: Tensor, hidden: Hidden | None = None, masks: Masks | None = None) -> Output:
        """Scores every next word.

        Args:
            tokens: int64 [time, columns].
            hidden: state before the first time step; None is zeros.
            masks: what to drop; without, the model draws in training and drops nothing in evaluation.
        """
        if hidden is None:
            hidden = self.zero_hidden(tokens.shape[1])
        if masks is None:
            masks = self.draw_masks(tokens.shape[1]) if self.training else self._no_masks()
        x = self.embedding(tokens)
        if masks.words is not None:
            x = x * masks.words[tokens]
        x = _times(x, masks.input)
        after, raw = [], x
        for layer, state, mask, between in zip(
            self.layers, hidden, masks.recurrent, (*masks.hidden, masks.output), strict=True
        ):
            raw, state = layer(x, state, mask)
            x = _times(raw, between)
            after.append(state)
        logits = F.linear(x, self.embedding.weight, self.decoder_bias)
        return Output(logits, raw, x, tuple(after))

    def _no_masks(self) -> Masks:
        layers = len(self.layers)
        return Masks(None, None, (None,) * (layers - 1), None, (None,) * layers)


def _times(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def regularisation(output: Output, activation: float, temporal: float) -> Tensor:
    """Activation and temporal activation regularisation of the last layer (section 4.6 of the paper): 0-dim.

    ``activation`` * mean(dropped²) + ``temporal`` * mean((raw[t + 1] - raw[t])²), as in the authors' code.
    """
    loss = activation * output.dropped.float().pow(2).mean()
    if len(output.raw) > 1:
        loss = loss + temporal * (output.raw[1:] - output.raw[:-1]).float().pow(2).mean()
    return loss


def detach(hidden: Hidden) -> Hidden:
    """The same state without the graph that made it: back-propagation stops here."""
    return tuple((h.detach(), c.detach()) for h, c in hidden)


def columns_of(hidden: Hidden, begin: int, end: int) -> Hidden:
    """The state of some of the columns."""
    return tuple((h[:, begin:end], c[:, begin:end]) for h, c in hidden)


def join_columns(parts: Sequence[Hidden]) -> Hidden:
    """One state over all columns from the states of consecutive groups of them."""
    return tuple(
        (torch.cat([p[i][0] for p in parts], dim=1), torch.cat([p[i][1] for p in parts], dim=1))
        for i in range(len(parts[0]))
    )
