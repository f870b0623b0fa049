"""Language models without a carried state: each token counted once, exact on resume, the same over ranks."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from adarem.data.text.pydoc import make_texts
from adarem.plan.plan import make_plan
from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.train.distributed.context import RankContext
from adarem.train.tasks.windows import WindowTask
from tests.support.accumulation import difference, train_steps
from tests.support.training import StopAtStep, assert_same_bits, figures, final_state
from tests.support.warm import train_on_ranks

ALONE = RankContext(0, 1, 0, torch.device("cpu"), ("here",))
TINY = (
    "data=pydoc", "model=gpt", "model.layers=1", "model.heads=2", "model.width=16", "model.context=10",
    "data.vocabulary=60", "scale.epochs=2", "scale.global_batch_size=8", "cluster.ranks_per_node=1",
    "wandb.mode=disabled",
)  # fmt: skip


@pytest.fixture(scope="module")
def text_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The start of each of the embedded texts."""
    root = tmp_path_factory.mktemp("some text")
    lines = {split: text.splitlines()[:80] for split, text in make_texts(58).items()}
    words = " ".join(sorted(set(" ".join(word for text in lines.values() for word in text).split())))
    for (split, text), name in zip(lines.items(), ("train", "valid", "test"), strict=True):
        (root / f"pydoc.{name}.txt").write_text("\n".join([words, *text] if split == "train" else text[:12]) + "\n")
    return root


@pytest.fixture
def window_run(tmp_path: Path, text_root: Path) -> Callable[..., Path]:
    """Plans one tiny run and returns its directory."""

    def make(*overrides: str, folder: str = "runs") -> Path:
        given = {o.split("=")[0] for o in overrides}
        places = (f'data.root="{text_root}"', f'runs_dir="{tmp_path / folder}"')
        plan = make_plan(["grid=table3", *(o for o in (*TINY, *places) if o.split("=")[0] not in given), *overrides])
        plan.write()
        assert len(plan.runs) == 1
        return plan.runs[0].run.path

    return make


def task_of(path: Path, context: RankContext = ALONE) -> WindowTask:
    return WindowTask(RunDir(path).config(), context)


def test_batches_are_windows_of_the_text_whatever_the_ranks(window_run: Callable[..., Path]) -> None:
    path = window_run("optimizer=adamw")
    complete = task_of(path)
    stream = np.concatenate([[complete._eos], complete._text["train"]])
    halves = [task_of(path, RankContext(r, 2, r, torch.device("cpu"), ("a", "b"))) for r in (0, 1)]
    every = []
    for epoch in (0, 1):
        with complete.batches(epoch, 0) as batches:
            every.append(list(batches))
        assert len(every[epoch]) == complete.info.steps_per_epoch > 2
        for batch in every[epoch]:
            assert batch.inputs.x.shape == (8, 10) and batch.count == 80
            for x, y in zip(*batch.inputs, strict=True):
                window = torch.cat([x, y[-1:]]).numpy()
                assert torch.equal(x[1:], y[:-1])
                assert any(np.array_equal(stream[i : i + 11], window) for i in range(len(stream) - 10))
        with complete.batches(epoch, 2) as batches:
            for a, b in zip(every[epoch][2:], batches, strict=True):
                assert torch.equal(a.inputs.x, b.inputs.x)
        parts = [list(half._batches(epoch, 0)) for half in halves]
        for batch, *shares in zip(every[epoch], *parts, strict=True):
            assert torch.equal(torch.cat([s.inputs.x for s in shares]), batch.inputs.x)
    assert not torch.equal(every[0][0].inputs.x, every[1][0].inputs.x)


def test_perplexity_counts_each_token_once_after_its_context(
    window_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adarem.train.tasks.windows._EVAL_TOKENS", 37)  # several passes
    task = task_of(window_run("optimizer=adamw"))
    model = task.build_model()
    evaluation = task.evaluate(model)
    final = task.final(model, evaluation, 1.0)
    assert model.training
    model.eval()
    for split, loss in (("val", evaluation.loss), ("test", final.metrics["test_loss"])):
        tokens = [task._eos, *task._text[split].tolist()]
        total, start = 0.0, 0
        for i, target in enumerate(tokens[1:]):
            if i - start == 10:  # a window moves by half, and the last one ends with the text
                start = min(start + 5, len(tokens) - 1 - 10)
            with torch.no_grad():
                logits = model(torch.tensor([tokens[start : i + 1]]))
            total -= F.log_softmax(logits[0, -1].double(), 0)[target].item()
        assert loss == pytest.approx(total / (len(tokens) - 1), rel=1e-5)
    assert evaluation.count == len(task._text["val"])
    assert final.metrics["perplexity"] == pytest.approx(math.exp(final.metrics["test_loss"]))
    assert "in windows of 10, from 5 or more tokens before it" in str(final.evaluation["read"])


@pytest.mark.parametrize("optimizer", ["sgdm", "adamw", "adarem"])
def test_interrupted_within_an_epoch_and_continued_ends_with_the_same_bits(
    optimizer: str, window_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    own = (f"optimizer={optimizer}", "model.dropout=0.2")
    complete, broken = (RunDir(window_run(*own, folder=folder)) for folder in ("complete", "broken"))
    assert run_here(complete.path) == exitcodes.OK
    for looks in (2, 3):
        assert run_here(broken.path, StopAtStep(looks)) == exitcodes.REQUEUE
    assert run_here(broken.path) == exitcodes.OK
    assert_same_bits(final_state(complete), final_state(broken))
    assert figures(complete)[0]["loss"] == figures(broken)[0]["loss"]
    results = complete.result(), broken.result()
    for key in ("perplexity", "val_perplexity", "best_val_perplexity", "best_epoch", "train_loss"):
        assert results[0][key] == results[1][key]
    assert complete.config().model.label == "GPT 1 x 16"


@pytest.mark.slow
def test_without_dropout_two_ranks_take_the_step_of_one_and_may_take_over_within_an_epoch(
    window_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    common = ("optimizer=sgdm", "optimizer.lr=0.1", "model.dropout=0.0")
    one = RunDir(window_run(*common, folder="one"))
    assert run_here(one.path) == exitcodes.OK
    two = RunDir(window_run(*common, "cluster.ranks_per_node=2", folder="two"))
    assert run_here(two.path, StopAtStep(3)) == exitcodes.REQUEUE
    done = train_on_ranks(2, two.path)
    assert done.returncode == 0, done.stderr
    a, b = final_state(one)["model"], final_state(two)["model"]
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=1e-4, atol=1e-6), name
    assert [m["tokens"] for m in one.metrics()] == [m["tokens"] for m in two.metrics()]
    assert one.result()["perplexity"] == pytest.approx(two.result()["perplexity"], rel=1e-4)


_OWN = """
from torch import nn


class Lm(nn.Module):
    def __init__(self, vocabulary, width=8):
        super().__init__()
        self.words, self.layer = nn.Embedding(vocabulary, width), nn.GRU(width, width, batch_first=True)
        self.scores = nn.Linear(width, vocabulary)

    def forward(self, tokens):
        return self.scores(self.layer(self.words(tokens))[0])


def make_lm(vocabulary, context):
    assert context == 10
    return Lm(vocabulary)
"""


def test_windows_in_parts_take_the_step_of_all(window_run: Callable[..., Path]) -> None:
    settings = ("optimizer=adamw", "model.dropout=0", "train.clip_grad_norm=0.1")
    expected = train_steps(window_run(*settings, folder="complete"), torch.float64)
    parts = train_steps(window_run(*settings, "scale.micro_batch_size=2", folder="parts"), torch.float64)
    assert difference(parts, expected) < 1e-9  # AdamW divides by the gradient's size


def test_a_language_model_of_a_users_own_learns(
    tmp_path: Path, window_run: Callable[..., Path], run_here: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lms_to_train.py").write_text(_OWN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    verse = "the cat sat on a mat\nand then it saw two dogs that ran to her\n"
    for name in ("train", "valid", "test"):
        (tmp_path / f"pydoc.{name}.txt").write_text(verse * (40 if name == "train" else 4))
    own = ["model=lms_to_train:make_lm", "optimizer=adam", "optimizer.lr=0.03", "scale.epochs=12"]
    gone = {"model.layers", "model.heads", "model.width"}
    monkeypatch.setattr("tests.train.tasks.test_windows.TINY", [o for o in TINY if o.split("=")[0] not in gone])
    run = RunDir(window_run(*own, "schedule=constant", f'data.root="{tmp_path}"', "data.vocabulary=17"))
    assert run.config().model.label == "lm"
    assert run_here(run.path) == exitcodes.OK
    # A random choice among the 17 words has perplexity 17.
    assert run.result()["perplexity"] < 2.5
    assert run.attempts()[0]["network"]["file"] == "lms_to_train.py"


def test_texts_that_are_too_short(window_run: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="model.context=4000: the .* tokens of training in .* are fewer than two windo"):
        task_of(window_run("optimizer=adam", "model.context=4000"))
    with pytest.raises(UserError, match="scale.global_batch_size=4000: more windows than the"):
        task_of(window_run("optimizer=adam", "scale.global_batch_size=4000"))
