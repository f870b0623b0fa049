"""The language model in training, on resume and over ranks: exact, and each token counted once."""

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
from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.identity import config_hash
from adarem.train.distributed.context import RankContext
from adarem.train.tasks.language import LanguageTask
from adarem.train.train import _build
from tests.support.accumulation import difference, train_steps
from tests.support.training import StopAtStep, assert_same_bits, figures, final_state
from tests.support.warm import train_on_ranks

ALONE = RankContext(0, 1, 0, torch.device("cpu"), ("here",))
TOKENS_TIMING = "tokens_per_s"
TINY = (
    "scale.epochs=2", "scale.global_batch_size=4", "model.layers=2", "model.hidden=14", "model.embedding=10",
    "model.bptt=40", "cluster=local", "cluster.ranks_per_node=1", "data.vocabulary=60",
    "data.expected_train=null", "data.expected_val=null", "data.expected_test=null", "wandb.mode=disabled",
)  # fmt: skip


@pytest.fixture(scope="module")
def text_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The start of the embedded corpus under the Penn Treebank's file names."""
    root = tmp_path_factory.mktemp("some text")
    words = {"train": 900, "val": 130, "test": 171}
    for (split, text), name in zip(make_texts(58).items(), ("train", "valid", "test"), strict=True):
        lines = text.splitlines()
        until = next(i for i in range(len(lines)) if len(" ".join(lines[:i]).split()) >= words[split])
        (root / f"ptb.{name}.txt").write_text("\n".join(lines[:until]) + "\n")
    train = (root / "ptb.train.txt").read_text()
    (root / "ptb.train.txt").write_text(" ".join(sorted(set(" ".join(make_texts(58).values()).split()))) + "\n" + train)
    return root


@pytest.fixture
def text_run(tmp_path: Path, text_root: Path) -> Callable[..., Path]:
    """Plans one tiny run and returns its directory: text_run("optimizer=adam", folder="complete")."""

    def make(*overrides: str, folder: str = "runs") -> Path:
        given = {o.split("=")[0] for o in overrides}
        places = (f'data.root="{text_root}"', f'runs_dir="{tmp_path / folder}"')
        defaults = [o for o in (*TINY, *places) if o.split("=")[0] not in given]
        plan = make_plan(["grid=table3", *defaults, *overrides])
        plan.write()
        assert len(plan.runs) == 1
        return plan.runs[0].run.path

    return make


def without_rate(run: RunDir) -> list[dict]:
    return [{k: v for k, v in m.items() if k != TOKENS_TIMING} for m in figures(run)]


def task_of(path: Path) -> LanguageTask:
    return LanguageTask(RunDir(path).config(), ALONE)


def test_batches_are_the_text_in_columns_whatever_the_ranks(text_run: Callable[..., Path]) -> None:
    path = text_run("optimizer=adam")
    config, complete = RunDir(path).config(), task_of(path)
    stream = np.concatenate([[complete._eos], complete._text["train"]])
    rows = complete.rows
    for epoch in (0, 1):
        with complete.batches(epoch, 0) as batches:
            every = list(batches)
        assert (
            len(every) == complete.info.steps_per_epoch
            and every[0].inputs.step == epoch * complete.info.steps_per_epoch
        )
        x, y = (torch.cat([b.inputs[i] for b in every]) for i in (0, 1))
        for column in range(4):
            assert np.array_equal(x[:, column], stream[column * rows :][:rows])
            assert np.array_equal(y[:, column], stream[column * rows + 1 :][:rows])
        with complete.batches(epoch, 3) as batches:
            assert all(torch.equal(a.inputs.x, b.inputs.x) for a, b in zip(every[3:], batches, strict=True))
        halves = [LanguageTask(config, RankContext(r, 2, r, torch.device("cpu"), ("a", "b"))) for r in (0, 1)]
        parts = []
        for half in halves:
            with half.batches(epoch, 0) as batches:
                parts.append(torch.cat([b.inputs.x for b in batches]))
        assert torch.equal(torch.cat(parts, dim=1), x)


def test_perplexity_counts_each_token_once_with_the_state_carried(
    text_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adarem.train.tasks.language._EVAL_STEPS", 37)  # does not divide the text
    task = task_of(text_run("optimizer=adam"))
    model = task.build_model()
    evaluation = task.evaluate(model)
    final = task.final(model, evaluation, 1.0).metrics
    for split, loss in (("val", evaluation.loss), ("test", final["test_loss"])):
        tokens = task._text[split].tolist()
        model.eval()
        total, hidden, word = 0.0, None, task._eos
        with torch.no_grad():
            for target in tokens:  # one word at a time
                out = model(torch.tensor([[word]]), hidden)
                total -= F.log_softmax(out.logits[0, 0].double(), 0)[target].item()
                hidden, word = out.hidden, target
        assert loss == pytest.approx(total / len(tokens), rel=1e-6)
    assert evaluation.count == len(task._text["val"]) and final["test_tokens"] == len(task._text["test"])
    assert final["perplexity"] == pytest.approx(math.exp(final["test_loss"]))
    assert final["val_perplexity"] == pytest.approx(math.exp(evaluation.loss))


@pytest.mark.parametrize("clip", [("model.clip=1e-3",), ("model.clip=0.25", "train.clip_grad_norm=1e-3")])
def test_rate_follows_the_length_and_the_gradient_is_clipped(
    clip: tuple[str, ...], text_run: Callable[..., Path]
) -> None:
    run = RunDir(text_run("optimizer=sgd", "optimizer.lr=2.0", "optimizer.weight_decay=0", *clip))
    trainer = _build(run, run.config(), ALONE)
    with trainer.task.batches(0, 0) as batches:
        for batch in list(batches)[:4]:
            before = [p.detach().clone() for p in trainer.model.parameters()]
            trainer._step(trainer.model, batch)
            lr = 2.0 * len(batch.inputs.x) / 40
            assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(lr)
            after = list(trainer.model.parameters())
            moved = math.sqrt(sum((p - q).pow(2).sum().item() for p, q in zip(after, before, strict=True)))
            assert moved == pytest.approx(lr * 1e-3, rel=1e-3)
    assert len({len(b.inputs.x) for b in trainer.task._batches(0, 0)}) > 1


@pytest.mark.parametrize("changed", [("optimizer=sgdm",), ("optimizer=adarem", "optimizer.lr=3"),
                                     ("optimizer=adam", "model.average_after=1", "scale.epochs=4")])  # fmt: skip
def test_interrupted_within_an_epoch_and_continued_ends_with_the_same_bits(
    changed: tuple[str, ...],
    text_run: Callable[..., Path],
    run_here: Callable[..., int],
) -> None:
    complete = RunDir(text_run(*changed, folder="complete"))
    assert run_here(complete.path) == exitcodes.OK
    broken = RunDir(text_run(*changed, folder="broken"))
    for looks in (2, 3, 1):
        assert run_here(broken.path, StopAtStep(looks)) == exitcodes.REQUEUE
        state = final_state(broken)
        assert all(h.shape[1] == 4 and bool((h != 0).any()) for pair in state["task"]["hidden"] for h in pair)
    assert run_here(broken.path) == exitcodes.OK
    assert_same_bits(final_state(complete), final_state(broken))
    assert without_rate(complete) == without_rate(broken)
    results = complete.result(), broken.result()
    for key in ("perplexity", "val_perplexity", "best_val_perplexity", "best_epoch", "train_loss"):
        assert results[0][key] == results[1][key]
    assert results[0]["status"] == "done" and results[0]["evaluation"]["tokens"] == results[0]["test_tokens"]
    rows = complete.metrics()
    assert {m["tokens"] for m in rows if m["split"] == "val"} == {results[0]["fingerprint"]["val"]["num_tokens"]}
    assert all(m["perplexity"] == pytest.approx(math.exp(m["loss"])) for m in rows)


def test_two_ranks_take_the_step_of_one_dropout_included_and_may_take_over_within_an_epoch(
    text_run: Callable[..., Path],
    run_here: Callable[..., int],
) -> None:
    """Same columns, same masks, averaged gradients; the state of one rank's columns goes to two."""
    common = ("optimizer=sgd", "optimizer.lr=1.0")
    one = RunDir(text_run(*common, folder="one"))
    assert run_here(one.path) == exitcodes.OK
    two = RunDir(text_run(*common, "cluster.ranks_per_node=2", folder="two"))
    assert run_here(two.path, StopAtStep(3)) == exitcodes.REQUEUE
    done = train_on_ranks(2, two.path)
    assert done.returncode == 0, done.stderr
    assert [a["world_size"] for a in two.attempts()] == [1, 2]
    a, b = final_state(one)["model"], final_state(two)["model"]
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=1e-4, atol=1e-6), name
    assert [m["loss"] for m in one.metrics()] == pytest.approx([m["loss"] for m in two.metrics()], rel=1e-4)
    assert [m["tokens"] for m in one.metrics()] == [m["tokens"] for m in two.metrics()]
    assert one.result()["perplexity"] == pytest.approx(two.result()["perplexity"], rel=1e-4)


def test_columns_in_parts_take_the_step_of_all_dropout_and_averaging_included(text_run: Callable[..., Path]) -> None:
    """To float64's rounding, and no other run for it: the state is carried column by column."""
    settings = ("optimizer=adarem", "model.average_after=1", "train.clip_grad_norm=0.1")
    complete = text_run(*settings, folder="complete")
    expected = train_steps(complete, torch.float64)
    for micro in (2, 1):
        parts = text_run(*settings, f"scale.micro_batch_size={micro}", folder=f"parts{micro}")
        assert difference(train_steps(parts, torch.float64), expected) < 1e-12
        assert parts.name == complete.name and config_hash(RunDir(parts).config()) == config_hash(
            RunDir(complete).config()
        )


def test_a_run_in_parts_is_interrupted_and_resumed(text_run: Callable[..., Path], run_here: Callable[..., int]) -> None:
    settings = ("optimizer=adarem", "scale.micro_batch_size=2")
    complete, broken = (RunDir(text_run(*settings, folder=name)) for name in ("complete", "broken"))
    assert run_here(complete.path) == 0
    assert run_here(broken.path, StopAtStep(2)) == 75 and run_here(broken.path) == 0
    assert_same_bits(final_state(complete), final_state(broken))


def test_it_learns_a_tiny_text_by_heart(
    tmp_path: Path,
    text_run: Callable[..., Path],
    run_here: Callable[..., int],
) -> None:
    verse = "the cat sat on a mat\nand then it saw two dogs that ran to her\n"
    for name in ("train", "valid", "test"):
        (tmp_path / f"ptb.{name}.txt").write_text(verse * (12 if name == "train" else 2))
    nothing = ("words", "input", "hidden", "output", "recurrent")
    run = RunDir(
        text_run(
            f'data.root="{tmp_path}"', "optimizer=adam", "optimizer.lr=0.02", "scale.epochs=40", "schedule=constant",
            "scale.global_batch_size=2", "model.bptt=20", "model.hidden=24", "model.embedding=24",
            "train.checkpoint_every=40", *(f"model.dropout.{k}=0.0" for k in nothing),
        )
    )  # fmt: skip
    assert run_here(run.path) == exitcodes.OK
    # at the start of a text the model has to guess; a random choice among the 17 words has perplexity 17
    assert run.result()["perplexity"] < 1.6
    assert run.metrics()[-1]["perplexity"] < run.metrics()[1]["perplexity"] / 4


def test_divergence_and_changed_text_are_told(
    tmp_path: Path,
    text_root: Path,
    text_run: Callable[..., Path],
    run_here: Callable[..., int],
) -> None:
    run = RunDir(text_run("optimizer=sgd", "optimizer.lr=1e38", "model.clip=0", folder="diverges"))
    assert run_here(run.path) == exitcodes.DIVERGED
    assert run.status() == "diverged"
    own = tmp_path / "own"
    own.mkdir()
    for file in text_root.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    run = RunDir(text_run("optimizer=sgd", f'data.root="{own}"'))
    assert run_here(run.path, StopAtStep(2)) == exitcodes.REQUEUE
    lines = (own / "ptb.test.txt").read_text().splitlines()
    (own / "ptb.test.txt").write_text("\n".join(reversed(lines)) + "\n")
    with pytest.raises(UserError, match=r"the data in .*own changed since this run began"):
        run_here(run.path)


def test_wrong_text_ends_in_one_line_before_anything_is_trained(
    text_run: Callable[..., Path],
    run_here: Callable[..., int],
) -> None:
    run = RunDir(text_run("optimizer=adam", "data.expected_train=929589", "data.vocabulary=10000"))
    with pytest.raises(UserError, match=r"ptb.train.txt: [\d,]+ tokens with end-of-sentence, the Penn Treebank has"):
        run_here(run.path)
    assert run.metrics() == [] and run.status() == "failed"
    assert isinstance(run.config(), RunConfig)
