"""Language modelling: predicting every next word of a text, with the recurrent state carried from batch to batch."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple, TypedDict, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adarem.data.text.corpus import EOS, read_corpus
from adarem.data.text.sampling import bptt_lengths
from adarem.run.config import RunConfig, TextConfig
from adarem.run.errors import UserError
from adarem.run.text_models import LstmConfig
from adarem.train.distributed.context import RankContext
from adarem.train.models.awd_lstm import AwdLstm, Hidden, Output, columns_of, detach, join_columns, regularisation
from adarem.train.models.build import build_network
from adarem.train.tasks.averaging import AverageState, NonMonotoneAverage
from adarem.train.tasks.base import Batch, Evaluation, FinalResult, Part, TaskInfo, autocast
from adarem.train.tasks.text import Score, predicted, text_evaluation, text_metrics, text_result

_EVAL_STEPS = 256  # time steps in one forward pass; the state is carried, so the metrics do not depend on it


class _LanguageState(TypedDict):
    hidden: Hidden | None  # of all columns
    average: AverageState | None


class TextInputs(NamedTuple):
    x: Tensor  # int64 [time, this rank's columns]
    y: Tensor  # the word after each
    step: int  # of the run
    first: int = 0  # of this rank's columns, the first of x


class LanguageTask:
    """The AWD-LSTM on a text: cross-entropy and its regularisation; perplexity of the next word.

    The training text is laid out in ``global_batch_size`` columns, which the ranks share out. Lengths of batches and
    masks of dropouts are pure functions of (seed, step), the same for any number of ranks. Short batches take short
    steps (Merity et al. 2017, section 4.1): their learning rate is scaled by their length.

    Raises:
        UserError: the text is missing, not what the config expects, or too short.
    """

    def __init__(self, config: RunConfig, context: RankContext) -> None:
        assert isinstance(config.data, TextConfig) and isinstance(config.model, LstmConfig)
        self.config, self.context, self.recipe = config, context, config.model
        corpus = read_corpus(config.data)
        self.vocabulary = len(corpus.words)
        self._text = corpus.tokens
        self._eos = corpus.words.index(EOS)
        self.columns = config.scale.global_batch_size
        share = self.columns // context.world_size
        self._mine = (context.rank * share, (context.rank + 1) * share)
        x, y = self._stream("train")
        self.rows = len(x) // self.columns
        if self.rows < 1:
            raise UserError(
                f"scale.global_batch_size={self.columns}: more columns than the {len(x)} tokens of {config.data.root}; "
                "lower it"
            )
        self._x, self._y = (
            _in_columns(s, self.rows, self.columns)[:, slice(*self._mine)].to(context.device) for s in (x, y)
        )
        self.info = TaskInfo(
            unit="tokens",
            totals=("loss", "tokens"),  # loss * tokens, tokens
            primary_metric="perplexity",
            evaluated_on="val",
            clip_norm=self.recipe.clip,
            steps_per_epoch=len(self._lengths(0)),
            fingerprint=corpus.fingerprint,
        )
        self._model: AwdLstm | None = None
        self._average: NonMonotoneAverage | None = None
        self._hidden: Hidden | None = None  # after the last batch of the current epoch
        self._parts: list[Hidden] = []  # after the parts so far of the current batch
        self._generator = torch.Generator(context.device)

    def build_model(self) -> nn.Module:
        """A freshly initialised AWD-LSTM on the CPU; the same seed gives the same weights on every machine and rank."""
        network = build_network(self.config, self.vocabulary)
        assert isinstance(network, AwdLstm)
        self._model = network
        if self.recipe.average_after:
            self._average = NonMonotoneAverage(network, self.recipe.average_after)
        return network

    def example_input(self) -> Tensor:
        """A batch in the shape of training's, the same on every rank. int64 [8, 2]."""
        return torch.arange(16).remainder(self.vocabulary).view(8, 2)

    def _stream(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """The token before each token of a split, and the split's tokens; the first one follows an end of sentence."""
        return predicted(self._text[split], self._eos)

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
    def batches(self, epoch: int, start_step: int) -> Iterator[Iterator[Batch]]:
        """The rank's training batches of an epoch (0 is the first) from a step on; the state is 0 before the first."""
        if start_step == 0:
            self._hidden = None
        yield self._batches(epoch, start_step)

    def _batches(self, epoch: int, start_step: int) -> Iterator[Batch]:
        ends = np.cumsum(self._lengths(epoch))
        for i in range(start_step, len(ends)):
            rows = slice(int(ends[i - 1]) if i else 0, int(ends[i]))
            inputs = TextInputs(self._x[rows], self._y[rows], epoch * self.info.steps_per_epoch + i)
            time = len(inputs.x)
            yield Batch(inputs, count=time * self.columns, lr_factor=time / self.recipe.bptt)

    def parts(self, batch: Batch, count: int) -> Iterator[Part]:
        """Ranks take consecutive columns, and so do parts."""
        assert isinstance(batch.inputs, TextInputs)
        x, y, step, _ = batch.inputs
        size = x.shape[1] // count
        for k in range(count):
            mine = slice(k * size, (k + 1) * size)
            inputs = TextInputs(x[:, mine], y[:, mine], step, k * size)
            yield Part(Batch(inputs, batch.count // count, batch.lr_factor), self.context.rank * count + k)

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean loss to differentiate and this batch's totals (float64 [2] on the device, see ``info.totals``).

        Of a batch in parts each is to be given, in order: the state after it is carried once the last one is there.
        """
        assert self._model is not None and isinstance(batch.inputs, TextInputs)
        x, y, step, first = batch.inputs
        if self._average is not None and first == 0:
            self._average.before_step()
        begin, end = self._mine[0] + first, self._mine[0] + first + x.shape[1]
        # One draw for the global batch, of which this rank uses its columns: N ranks take the step of one process.
        self._generator.manual_seed(self.config.seed * self.config.scale.epochs * self.info.steps_per_epoch + step)
        masks = self._model.draw_masks(self.columns, self._generator).of_columns(begin, end)
        hidden = self._hidden and columns_of(self._hidden, first, first + x.shape[1])
        hidden = hidden or self._model.zero_hidden(x.shape[1])
        with autocast(self.config, self.context):
            out: Output = network(x, hidden, masks)
            cross_entropy = F.cross_entropy(out.logits.flatten(0, 1), y.flatten())
            loss = cross_entropy + regularisation(out, self.recipe.activation_reg, self.recipe.temporal_reg)
        self._parts = [*(self._parts if first else ()), detach(out.hidden)]
        if end == self._mine[1]:
            self._hidden = self._parts[0] if first == 0 else join_columns(self._parts)
        with torch.no_grad():
            tokens = torch.full((), y.numel(), dtype=torch.float64, device=y.device)
            totals = torch.stack([cross_entropy.double() * tokens, tokens])
        return loss, totals

    def metrics(self, totals: Tensor) -> dict[str, float]:
        """Totals over all ranks to loss (nats per token), perplexity and tokens."""
        return text_metrics(totals)

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Evaluates the complete validation text."""
        with self._averaged():
            score = self._score(model, "val")
        if self._average is not None:
            self._average.observe(score.loss)
        return text_evaluation(score)

    def final(self, model: nn.Module, evaluation: Evaluation, best: float) -> FinalResult:
        """The perplexity of the test text, which is read here for the first time, and of the validation text."""
        with self._averaged():
            test = self._score(model, "test")
        return text_result(test, evaluation, best, "as one stream, the state carried from the first word to the last")

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self._average is None else self._average.applied()

    @torch.no_grad()
    def _score(self, model: nn.Module, split: str) -> Score:
        """Mean loss over a split, each token predicted once, from all tokens before it.

        One stream cannot be shared out: rank 0 reads it, the others wait.
        """
        score = None
        if self.context.is_main:
            assert isinstance(model, AwdLstm)
            x, y = (torch.from_numpy(s).to(self.context.device)[:, None] for s in self._stream(split))
            model.eval()
            total = torch.zeros((), dtype=torch.float64, device=self.context.device)
            hidden: Hidden | None = None
            seen = 0
            for start in range(0, len(x), _EVAL_STEPS):
                self.context.heartbeat.repeat()
                part = slice(start, start + _EVAL_STEPS)
                with autocast(self.config, self.context):
                    out: Output = model(x[part], hidden)
                total += F.cross_entropy(out.logits[:, 0].float(), y[part, 0], reduction="none").double().sum()
                hidden, seen = out.hidden, seen + len(y[part])
            model.train()
            assert seen == self.info.fingerprint[split]["num_tokens"], "a token was evaluated twice or not at all"
            score = Score(total.item() / seen, seen)
        return Score(**self.context.broadcast(None if score is None else score._asdict()))

    def state_dict(self) -> "_LanguageState":
        """The carried state of all columns, on the host, and the averaging's. Every rank must call."""
        hidden = None
        if self._hidden is not None:
            ranks = self.context.gather_tensors([t for layer in self._hidden for t in layer])
            hidden = join_columns([tuple(zip(its[::2], its[1::2], strict=True)) for its in ranks])
        return {"hidden": hidden, "average": None if self._average is None else self._average.state_dict()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Takes over the state of a checkpoint, made by any number of ranks."""
        saved = cast(_LanguageState, state)
        if saved["hidden"] is not None:
            mine, device = columns_of(saved["hidden"], *self._mine), self.context.device
            self._hidden = tuple((h.to(device), c.to(device)) for h, c in mine)
        if self._average is not None and saved["average"] is not None:
            self._average.load_state_dict(saved["average"])


def _in_columns(stream: np.ndarray, rows: int, columns: int) -> Tensor:
    """int64 [rows, columns]: each column holds consecutive words; words that fill no complete row are left out."""
    return torch.from_numpy(np.ascontiguousarray(stream[: rows * columns].reshape(columns, rows).T))
