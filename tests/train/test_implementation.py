"""All ranks take AdaRem's steps with one implementation, and the run says with which."""

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from adarem.native import SlowerWarning
from adarem.optim.kernels.fused import Kernels
from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.train import implementation
from adarem.train import optimizers as built
from tests.support.training import StopAtStep, assert_same_bits, figures, final_state
from tests.support.warm import train_on_ranks


def agreed(monkeypatch: pytest.MonkeyPatch, *ranks: Kernels, name: str = "adarem", imported: str | None = None):
    def own(device_type: str) -> Kernels:
        warnings.warn("once for each rank", SlowerWarning, stacklevel=1)
        return ranks[0]

    monkeypatch.setattr(implementation, "kernels", own)
    context = SimpleNamespace(
        device=SimpleNamespace(type="cpu"),
        hosts=("a", "b", "b"),
        heartbeat=SimpleNamespace(repeat=lambda: None),
        gather=lambda value: [bool(r.name) if isinstance(value, bool) else (r.note,) * bool(r.note) for r in ranks],
    )
    with warnings.catch_warnings(record=True) as shown:
        found = implementation.agree(context, SimpleNamespace(name=name, imported=imported))
    assert not shown  # the log has the notes
    return found


def test_one_rank_without_kernels_decides_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = Kernels("C++", ""), Kernels("", "c++: none; install it")
    assert agreed(monkeypatch, good, good) == ("fused (C++)", ())
    found = agreed(monkeypatch, good, bad, bad)
    assert found == ("foreach", ("rank 1 on b: c++: none; install it",)) and not found.fused
    slow_start = Kernels("C++", "cache: full; empty it")
    assert agreed(monkeypatch, good, good, slow_start) == ("fused (C++)", ("rank 2 on b: cache: full; empty it",))


def test_other_optimizers_have_nothing_to_agree_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert agreed(monkeypatch, Kernels("C++", ""), name="sgdm") is None
    assert agreed(monkeypatch, Kernels("C++", ""), name="adarem", imported="own:AdaRem") is None


def test_a_run_says_it_and_a_checkpoint_does_not_decide_it(
    tiny_run: Callable[..., Path], run_here: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tiny_run("optimizer=adarem_s"))
    assert run_here(run.path, StopAtStep(2)) == exitcodes.REQUEUE
    lost = Kernels("", "c++: none; install it")
    monkeypatch.setattr(implementation, "kernels", lambda device_type: lost)
    assert run_here(run.path) == exitcodes.OK
    assert [a["implementation"] for a in run.attempts()] == ["fused (C++)", "foreach"]
    (note,) = run.attempts()[1]["implementation_notes"]
    assert note.endswith(": c++: none; install it")
    lines = [line.split(" ", 2)[2] for line in run.log_file.read_text().splitlines()]
    assert "steps: fused (C++)" in lines and lines[lines.index("steps: foreach") + 1] == note
    groups = final_state(run)["optimizer"]["param_groups"]
    assert all(g["foreach"] and not g["fused"] for g in groups)


def test_optimizers_are_built_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    hparams = {"beta": 0.9, "lam": 0.999, "eps": 0.0, "scope": "tensor", "decay_every": "epoch"}
    for fused, works in ((True, True), (True, False), (False, True)):
        monkeypatch.setattr(built, "available", lambda device_type, works=works: works)
        optimizer = built.build_optimizer(
            "adarem",
            torch.nn.Linear(3, 2),
            lr=0.1,
            weight_decay=0.0,
            hparams=hparams,
            steps_per_epoch=4,
            fused=fused,
        )
        flags = {(g["fused"], g["foreach"]) for g in optimizer.param_groups}
        assert flags == ({(True, None)} if fused and works else {(None, True)})


@pytest.mark.slow
def test_a_rank_without_a_compiler_trains_what_two_without_train(tiny_run: Callable[..., Path]) -> None:
    def train(folder: str, condition: str) -> RunDir:
        run = RunDir(tiny_run("optimizer=adarem", "cluster.ranks_per_node=2", "scale.epochs=1", folder=folder))
        site = run.path.parent / "site"
        site.mkdir()
        lines = f"import os\nif {condition}:\n    os.environ['CXX'] = 'no-such-compiler'\n"
        (site / "sitecustomize.py").write_text(lines)
        done = train_on_ranks(2, run.path, PYTHONPATH=str(site))
        assert done.returncode == 0, done.stderr
        assert "SlowerWarning" not in done.stderr
        return run

    one, both = train("one", "os.environ.get('RANK') == '1'"), train("both", "'RANK' in os.environ")
    assert [run.attempts()[0]["implementation"] for run in (one, both)] == ["foreach"] * 2
    ((of_one,), (of_both,)) = (run.attempts()[0]["implementation_notes"] for run in (one, both))
    assert of_one.startswith("rank 1 on ") and of_both.startswith("rank 0 on ")
    assert of_one.endswith("CXX=no-such-compiler: no such program; set CXX to a compiler, or unset it")
    assert_same_bits(final_state(one), final_state(both))
    assert figures(one) == figures(both)
