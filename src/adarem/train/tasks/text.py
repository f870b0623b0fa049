"""What both tasks on text measure: loss and perplexity of words, and how the result says so."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adarem.train.tasks.base import Evaluation, FinalResult

_LARGEST_LOSS = 700.0  # whose exponential is still a float


class Score(NamedTuple):
    """Of a complete text."""

    loss: float  # mean, nats per token
    tokens: int


def perplexity(loss: float) -> float:
    """exp(loss); a loss beyond floats' exponentials gives the largest that there is, NaN stays."""
    return math.exp(min(loss, _LARGEST_LOSS)) if not math.isnan(loss) else loss


def predicted(tokens: NDArray[np.int64], eos: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The token before each token of a text, and the text's tokens; the first one follows an end of sentence."""
    return np.concatenate([[eos], tokens[:-1]]), tokens


def text_metrics(totals: Tensor) -> dict[str, float]:
    """Totals over all ranks, ``loss * tokens`` and ``tokens``, to loss (nats per token), perplexity and tokens."""
    loss, tokens = totals.tolist()
    return {"loss": loss / tokens, "perplexity": perplexity(loss / tokens), "tokens": int(tokens)}


def text_evaluation(score: Score) -> Evaluation:
    """Of the validation text."""
    return Evaluation(loss=score.loss, metrics={"perplexity": perplexity(score.loss)}, count=score.tokens)


def text_result(test: Score, evaluation: Evaluation, best: float, read: str) -> FinalResult:
    """The perplexity of the test text and of the validation text.

    Args:
        read: how a text is read, in words.
    """
    metrics = {
        "perplexity": perplexity(test.loss),
        "test_loss": test.loss,
        "test_tokens": test.tokens,
        "val_perplexity": evaluation.metrics["perplexity"],
        "best_val_perplexity": best,
    }
    return FinalResult(
        metrics=metrics,
        evaluation={"read": read, "tokens": test.tokens},
        summary=(
            f"test perplexity {metrics['perplexity']:.2f} on {test.tokens} tokens, validation "
            f"{metrics['val_perplexity']:.2f}"
        ),
    )
