"""Language modelling without a carried state: every next word of windows of a text, each on its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adarem.data.text.corpus import EOS, read_corpus
from adarem.data.text.sampling import scored_windows, training_windows
from adarem.run.config import RunConfig, TextConfig
from adarem.run.errors import UserError
from adarem.run.text_models import GptConfig, LmConfig
from adarem.train.distributed.context import RankContext
from adarem.train.models.build import build_network
from adarem.train.tasks.base import Batch, Evaluation, FinalResult, Part, TaskInfo, autocast
from adarem.train.tasks.text import Score, predicted, text_evaluation, text_metrics, text_result

# Of one forward pass in an evaluation. The same at any number of ranks, so that sums are of the same terms.
_EVAL_TOKENS = 4096


class WindowInputs(NamedTuple):
    x: Tensor  # int64 [this rank's windows, context]
    y: Tensor  # the word after each


class WindowTask:
    """A language model on windows of ``model.context`` words: cross-entropy, perplexity of the next word.

    A global batch is ``global_batch_size`` windows, which the ranks share out. Which windows an epoch has and in which
    order is a pure function of (seed, epoch), the same for any number of ranks. The last windows, which fill no batch,
    are left out. Dropout draws by step and rank.

    Raises:
        UserError: the text is missing, not what the config expects, or too short.
    """

    def __init__(self, config: RunConfig, context: RankContext) -> None:
        assert isinstance(config.data, TextConfig) and isinstance(config.model, GptConfig | LmConfig)
        self.config, self.context, self._length = config, context, config.model.context
        corpus = read_corpus(config.data)
        self.vocabulary = len(corpus.words)
        self._text, self._eos = corpus.tokens, corpus.words.index(EOS)
        tokens, batch = len(self._text["train"]), config.scale.global_batch_size
        if tokens < 2 * self._length:
            raise UserError(
                f"model.context={self._length}: the {tokens} tokens of training in {config.data.root} are fewer than "
                "two windows; lower it"
            )
        steps = len(self._starts(0)) // batch
        if steps < 1:
            raise UserError(
                f"scale.global_batch_size={batch}: more windows than the {len(self._starts(0))} of {config.data.root}; "
                "lower it"
            )
        share = batch // context.world_size
        self._mine = slice(context.rank * share, (context.rank + 1) * share)
        self._x, self._y = (torch.from_numpy(s) for s in predicted(self._text["train"], self._eos))
        self.info = TaskInfo(
            unit="tokens",
            totals=("loss", "tokens"),  # loss * tokens, tokens
            primary_metric="perplexity",
            evaluated_on="val",
            clip_norm=0.0,
            steps_per_epoch=steps,
            fingerprint=corpus.fingerprint,
        )

    def build_model(self) -> nn.Module:
        """A freshly initialised network on the CPU; the same seed gives the same weights on every machine and rank."""
        return build_network(self.config, self.vocabulary)

    def example_input(self) -> Tensor:
        """A batch in the shape of training's, the same on every rank. int64 [2, context]."""
        return torch.arange(2 * self._length).remainder(self.vocabulary).view(2, self._length)

    def _starts(self, epoch: int) -> np.ndarray:
        return training_windows(len(self._text["train"]), context=self._length, seed=self.config.seed, epoch=epoch)

    @contextmanager
    def batches(self, epoch: int, start_step: int) -> Iterator[Iterator[Batch]]:
        """The rank's training batches of an epoch (0 is the first) from a step on."""
        yield self._batches(epoch, start_step)

    def _batches(self, epoch: int, start_step: int) -> Iterator[Batch]:
        starts, size = self._starts(epoch), self.config.scale.global_batch_size
        for i in range(start_step, self.info.steps_per_epoch):
            mine = starts[i * size : (i + 1) * size][self._mine]
            places = torch.from_numpy(mine)[:, None] + torch.arange(self._length)
            x, y = (s[places].to(self.context.device) for s in (self._x, self._y))
            yield Batch(WindowInputs(x, y), count=size * self._length)

    def parts(self, batch: Batch, count: int) -> Iterator[Part]:
        """Ranks take consecutive windows, and so do parts."""
        assert isinstance(batch.inputs, WindowInputs)
        x, y = batch.inputs
        size = len(x) // count
        for k in range(count):
            mine = slice(k * size, (k + 1) * size)
            yield Part(Batch(WindowInputs(x[mine], y[mine]), batch.count // count), self.context.rank * count + k)

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean loss to differentiate and this batch's totals (float64 [2] on the device, see ``info.totals``)."""
        assert isinstance(batch.inputs, WindowInputs)
        x, y = batch.inputs
        with autocast(self.config, self.context):
            loss = F.cross_entropy(network(x).flatten(0, 1), y.flatten())
        with torch.no_grad():
            tokens = torch.full((), y.numel(), dtype=torch.float64, device=y.device)
            return loss, torch.stack([loss.double() * tokens, tokens])

    def metrics(self, totals: Tensor) -> dict[str, float]:
        """Totals over all ranks to loss (nats per token), perplexity and tokens."""
        return text_metrics(totals)

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Evaluates the complete validation text."""
        return text_evaluation(self._score(model, "val"))

    def final(self, model: nn.Module, evaluation: Evaluation, best: float) -> FinalResult:
        """The perplexity of the test text, which is read here for the first time, and of the validation text."""
        c = self._length
        read = f"each token once, in windows of {c}, from {c - c // 2} or more tokens before it where there are so many"
        return text_result(self._score(model, "test"), evaluation, best, read)

    @torch.no_grad()
    def _score(self, model: nn.Module, split: str) -> Score:
        """Mean loss over a split, each token predicted once, see ``scored_windows``. The ranks share the passes out.

        Passes and the order of the sum are the same at any number of ranks.
        """
        x, y = (torch.from_numpy(s) for s in predicted(self._text[split], self._eos))
        windows = scored_windows(len(y), context=self._length)
        length, device = min(self._length, len(y)), self.context.device
        places = torch.from_numpy(windows.starts)[:, None] + torch.arange(length)
        counts = places >= torch.from_numpy(windows.scored_from)[:, None]
        at_once = max(1, _EVAL_TOKENS // length)
        table = torch.zeros(len(y), 2, dtype=torch.float64, device=device)  # loss, times seen
        model.eval()
        for i, start in enumerate(range(0, len(places), at_once)):
            if i % self.context.world_size != self.context.rank:
                continue
            self.context.heartbeat.repeat()
            at, scored = places[start : start + at_once], counts[start : start + at_once]
            with autocast(self.config, self.context):
                logits: Tensor = model(x[at].to(device))
            loss = F.cross_entropy(logits.float().transpose(1, 2), y[at].to(device), reduction="none")[
                scored.to(device)
            ]
            rows = torch.stack([loss.double(), torch.ones_like(loss).double()], dim=1)
            table.index_add_(0, at[scored].to(device), rows)
        model.train()
        table = self.context.sum(table).cpu()
        assert bool((table[:, 1] == 1).all()), "a token was evaluated twice or not at all"
        return Score(table[:, 0].sum().item() / len(y), len(y))

    def state_dict(self) -> dict[str, object]:
        """Empty: nothing is carried from batch to batch."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None: ...
