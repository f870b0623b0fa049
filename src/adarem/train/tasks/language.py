"""Language modelling: predicting every next word of a text, with the recurrent state carried from batch to batch."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adarem.data.text.corpus import EOS, read_corpus
from adarem.data.text.sampling import bptt_lengths
from adarem.run.config import LstmConfig, RunConfig, TextConfig
from adarem.run.errors import UserError
from adarem.train.distributed.context import World
from adarem.train.models.awd_lstm import AwdLstm, Hidden, detach, join_columns, regularisation
from adarem.train.tasks.image import Evaluation, autocast_settings

_EVAL_STEPS = 256  # time steps a forward pass; the state is carried, so that it does not show in the figures
_LARGEST_LOSS = 700.0  # whose exponential is still a float


class TextBatch(NamedTuple):
    x: Tensor  # int64 [time, this rank's columns]
    y: Tensor  # the word after each
    step: int  # of the run


class LanguageTask:
    """The AWD-LSTM on a text: cross-entropy and its regularisation; perplexity of the next word.

    The training text is laid out in ``global_batch_size`` columns, of which each rank has its share. Lengths of batches
    and masks of dropouts are pure functions of (seed, step), the same for any number of ranks.
    """

    UNIT = "tokens"
    TOTALS = ("loss", "tokens")  # loss * tokens, tokens
    HEADLINE, LOWER_IS_BETTER = "perplexity", True

    def __init__(self, config: RunConfig, world: World) -> None:
        assert isinstance(config.data, TextConfig) and isinstance(config.model, LstmConfig)
        self.config, self.world, self.recipe = config, world, config.model
        self.clip, self.average_after = self.recipe.clip, self.recipe.average_after
        corpus = read_corpus(config.data)
        self.fingerprint = corpus.fingerprint
        self.vocabulary = len(corpus.words)
        self._text = corpus.tokens
        self._eos = corpus.words.index(EOS)
        self.columns = config.scale.global_batch_size
        share = self.columns // world.world_size
        self._mine = (world.rank * share, (world.rank + 1) * share)
        x, y = self._stream("train")
        rows = len(x) // self.columns
        if rows < 1:
            raise UserError(
                f"scale.global_batch_size={self.columns}: more columns than the {len(x)} tokens of {config.data.root}; "
                "lower it"
            )
        self._x, self._y = (_in_columns(s, rows, self.columns)[:, slice(*self._mine)].to(world.device) for s in (x, y))
        self.rows = rows
        self.steps_per_epoch = len(self._lengths(0))
        self._model: AwdLstm | None = None
        self._hidden: Hidden | None = None  # after the last batch of an epoch that is under way
        self._generator = torch.Generator(world.device)
        self._autocast = autocast_settings(config, world)

    def build_model(self) -> nn.Module:
        """A freshly initialised AWD-LSTM on the CPU; the same seed gives the same weights on every machine and rank."""
        m = self.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self._model = AwdLstm(
                self.vocabulary,
                embedding=m.embedding,
                hidden=m.hidden,
                layers=m.layers,
                dropout_words=m.dropout.words,
                dropout_input=m.dropout.input,
                dropout_hidden=m.dropout.hidden,
                dropout_output=m.dropout.output,
                dropout_recurrent=m.dropout.recurrent,
            )
        return self._model

    def example_input(self) -> Tensor:
        """A batch in the shape of training's, the same on every rank. int64 [8, 2]."""
        return torch.arange(16).remainder(self.vocabulary).view(8, 2)

    def example_loss(self, network: nn.Module) -> Tensor:
        """A loss of ``example_input`` that every parameter bears on."""
        return network(self.example_input().to(self.world.device)).logits.sum()

    def _stream(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Every token of a split as a target, and the one before it; before the first stands an end of sentence."""
        y = self._text[split]
        return np.concatenate([[self._eos], y[:-1]]), y

    def _lengths(self, epoch: int) -> np.ndarray:
        m = self.recipe
        return bptt_lengths(
            self.rows,
            bptt=m.bptt,
            half=m.bptt_half,
            deviation=m.bptt_deviation,
            least=m.bptt_least,
            seed=self.config.seed,
            epoch=epoch,
        )

    @contextmanager
    def batches(self, epoch: int, start_step: int) -> Iterator[Iterator[TextBatch]]:
        """The rank's training batches of an epoch (0 is the first) from a step on; the state starts at 0 with it."""
        if start_step == 0:
            self._hidden = None
        yield self._batches(epoch, start_step)

    def _batches(self, epoch: int, start_step: int) -> Iterator[TextBatch]:
        ends = np.cumsum(self._lengths(epoch))
        for i in range(start_step, len(ends)):
            rows = slice(int(ends[i - 1]) if i else 0, int(ends[i]))
            yield TextBatch(self._x[rows], self._y[rows], epoch * self.steps_per_epoch + i)

    def lr_factor(self, batch: TextBatch) -> float:
        """Short batches take short steps (Merity et al. 2017, section 4.1)."""
        return len(batch.x) / self.recipe.bptt

    def count(self, batch: TextBatch) -> int:
        """Tokens of a batch over all ranks."""
        return len(batch.x) * self.columns

    def loss(self, network: nn.Module, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """The mean loss to differentiate and this batch's totals (float64 [2] on the device, see TOTALS)."""
        assert self._model is not None
        # One draw for the whole global batch, of which this rank uses its columns: the ranks take one process's step.
        self._generator.manual_seed(self.config.seed * self.config.scale.epochs * self.steps_per_epoch + batch.step)
        masks = self._model.draw_masks(self.columns, self._generator).of_columns(*self._mine)
        hidden = self._hidden or self._model.zero_hidden(self._mine[1] - self._mine[0])
        with torch.autocast(**self._autocast):
            out = network(batch.x, hidden, masks)
            cross_entropy = F.cross_entropy(out.logits.flatten(0, 1), batch.y.flatten())
            loss = cross_entropy + regularisation(out, self.recipe.activation_reg, self.recipe.temporal_reg)
        self._hidden = detach(out.hidden)
        with torch.no_grad():
            tokens = torch.full((), batch.y.numel(), dtype=torch.float64, device=batch.y.device)
            totals = torch.stack([cross_entropy.double() * tokens, tokens])
        return loss, totals

    @staticmethod
    def figures(totals: Tensor) -> dict[str, float]:
        """Totals over all ranks to loss (nats a token), perplexity and tokens."""
        loss, tokens = totals.tolist()
        return {"loss": loss / tokens, "perplexity": perplexity(loss / tokens), "tokens": int(tokens)}

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Evaluates the whole validation text."""
        loss, tokens = self._score(model, "val")
        return Evaluation(loss=loss, figures={"perplexity": perplexity(loss)}, count=tokens)

    def final(self, model: nn.Module, evaluation: Evaluation, best: float) -> dict[str, float]:
        """The result's figures: perplexity is that of the test text, which is read here for the first time."""
        loss, tokens = self._score(model, "test")
        return {
            "perplexity": perplexity(loss),
            "test_loss": loss,
            "test_tokens": tokens,
            "val_perplexity": evaluation.figures["perplexity"],
            "best_val_perplexity": best,
        }

    def describe_evaluation(self) -> dict[str, Any]:
        """How the test perplexity is measured, for the result."""
        tokens = len(self._text["test"])
        return {"read": "as one stream, the state carried from the first word to the last", "tokens": tokens}

    @staticmethod
    def sentence(result: dict[str, float]) -> str:
        return (
            f"test perplexity {result['perplexity']:.2f} on {result['test_tokens']} tokens, validation "
            f"{result['val_perplexity']:.2f}"
        )

    @torch.no_grad()
    def _score(self, model: nn.Module, split: str) -> tuple[float, int]:
        """Mean loss over a split and its number of tokens, each predicted once, from all that stand before it.

        One stream cannot be shared out: rank 0 reads it, the others wait.
        """
        told = None
        if self.world.is_main:
            assert isinstance(model, AwdLstm)
            x, y = (torch.from_numpy(s).to(self.world.device)[:, None] for s in self._stream(split))
            model.eval()
            total = torch.zeros((), dtype=torch.float64, device=self.world.device)
            hidden, seen = None, 0
            for start in range(0, len(x), _EVAL_STEPS):
                self.world.pulse.on()
                part = slice(start, start + _EVAL_STEPS)
                with torch.autocast(**self._autocast):
                    out = model(x[part], hidden)
                total += F.cross_entropy(out.logits[:, 0].float(), y[part, 0], reduction="none").double().sum()
                hidden, seen = out.hidden, seen + len(y[part])
            model.train()
            assert seen == self.fingerprint[split]["num_tokens"], "a token was evaluated twice or not at all"
            told = (total.item() / seen, seen)
        return self.world.broadcast(told)

    def state(self) -> Hidden | None:
        """The carried state of all columns, on the host: what resuming within an epoch needs. Every rank must call."""
        if self._hidden is None:
            return None
        return join_columns(self.world.gather(tuple((h.cpu(), c.cpu()) for h, c in self._hidden)))

    def restore(self, state: Hidden | None) -> None:
        """Takes over the state of a checkpoint, made by any number of ranks."""
        if state is not None:
            columns, device = slice(*self._mine), self.world.device
            self._hidden = tuple((h[:, columns].to(device), c[:, columns].to(device)) for h, c in state)


def perplexity(loss: float) -> float:
    """exp(loss); a loss beyond floats' exponentials gives the largest that there is, NaN stays."""
    return math.exp(min(loss, _LARGEST_LOSS)) if not math.isnan(loss) else loss


def _in_columns(stream: np.ndarray, rows: int, columns: int) -> Tensor:
    """int64 [rows, columns]: column after column of consecutive words; what does not fill a row is left out."""
    return torch.from_numpy(np.ascontiguousarray(stream[: rows * columns].reshape(columns, rows).T))
