"""A small GPT of torch's own modules: learned positions, pre-norm encoder layers under a causal mask, tied embeddings.

Sizes and initialisation follow Radford et al. 2019: normal with deviation 0.02, and with 0.02 / sqrt(2 layers) where a
block adds to the residual stream.
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

_DEVIATION = 0.02


class Gpt(nn.Module):
    """Scores every next word from those before it.

    Args:
        vocabulary: number of distinct words.
        layers: number of blocks.
        heads: of attention; they divide ``width``.
        width: size of the word vectors; the feed-forward of a block is four times as wide.
        context: largest number of tokens in a window.
        dropout: probability, of embeddings, attention, and both branches of a block.
    """

    def __init__(
        self, vocabulary: int, *, layers: int, heads: int, width: int, context: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                adds = name.endswith(("out_proj.weight", "linear2.weight"))
                nn.init.normal_(p, std=_DEVIATION / math.sqrt(2 * layers) if adds else _DEVIATION)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [windows, tokens] to scores of the token after each: [windows, tokens, vocabulary]."""
        length = tokens.shape[1]
        x = self.embedding(tokens) + self.position_embedding.weight[:length]
        x = self.dropout(x)
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device, dtype=x.dtype)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        return F.linear(self.norm(x), self.embedding.weight)
