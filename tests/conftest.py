"""Fixtures that many tests share, and the rule that no test is skipped which this machine could have run."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "disabled"  # the tests of the mirror choose for themselves
os.environ.pop("WANDB_API_KEY", None)

# Tests do not wait for the cores of each other's launches, nor for those of a user's.
_locks = tempfile.TemporaryDirectory(prefix="adarem-test-locks-")
os.environ["ADAREM_LOCKS"] = _locks.name

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and "GPU" not in str(report.longrepr):
        _skipped.append(f"{report.nodeid}: {report.longrepr}")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped and "GPU" not in str(report.longrepr):
        _skipped.append(f"{report.nodeid}: {report.longrepr}")


# The files that take longest, first, so that no process is left with one of them when the others are done.
_FIRST = (
    "train/test_train.py",
    "faults/test_input.py",
    "train/tasks/test_language.py",
    "faults/test_ranks.py",
    "data/images/test_own_folder.py",
    "faults/test_disk.py",
    "report/test_make.py",
    "train/test_trainer.py",
    "tracking/test_workspace.py",
    "train/tasks/test_windows.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without ``-m`` or a test's name, leaves out the tests of installs and, except on CI, the slow ones."""
    if config.getoption("markexpr") or any("::" in a for a in config.args):
        return
    place = {ROOT / "tests" / file: number for number, file in enumerate(_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))
    left_out = ["installs"] if os.environ.get("CI") == "true" else ["installs", "slow"]
    out = [item for item in items if any(map(item.get_closest_marker, left_out))]
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """On CI a skip is a failure, unless it is for want of a GPU."""
    if os.environ.get("CI") == "true" and _skipped and not hasattr(session.config, "workerinput"):
        print("\nskipped on CI, where everything but a GPU is there:", *_skipped, sep="\n  ", file=sys.stderr)
        session.exitstatus = 1


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """What a test or the code that it calls sets (the ranks' variables of a training in this process) ends with it."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded digits, prepared for both backends."""
    from adarem.plan.plan import make_plan

    root = tmp_path_factory.mktemp("digits data")  # a space in the path, to meet what users have
    from adarem.data.prepare import prepare

    for backend in ("ffcv", "folder"):
        plan = make_plan(["data=digits", f'data.root="{root}"', f"data.backend={backend}"])
        prepare(plan.runs[0].config.data, workers=2, progress=False)
    return root


TINY = ("scale=smoke", "scale.global_batch_size=288", "model=shufflenet_v2_0.5", "cluster.ranks_per_node=1")


@pytest.fixture
def tiny_run(tmp_path: Path, digits_root: Path, forked_plan: None) -> Callable[..., Path]:
    """Plans one run of two epochs of four steps and returns its directory: tiny_run("optimizer=adarem", seeds=3)."""
    from adarem.plan.plan import make_plan

    def make(*overrides: str, folder: str = "runs") -> Path:
        given = {o.split("=")[0] for o in overrides}
        places = (f'data.root="{digits_root}"', f'runs_dir="{tmp_path / folder}"', "wandb.mode=disabled")
        defaults = [o for o in (*TINY, *places, "optimizer=sgdm", "data=digits") if o.split("=")[0] not in given]
        plan = make_plan([*defaults, *overrides])
        plan.write()
        assert len(plan.runs) == 1
        return plan.runs[0].run.path

    return make


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Trains in this process, as rank 0 of 1, and stops where asked."""

    from adarem.train import train
    from tests.support.training import NeverStop

    def go(path: Path, stop: object = None) -> int:
        monkeypatch.setattr(train, "SignalListener", lambda: stop or NeverStop())
        return train.train(path)

    return go


@pytest.fixture
def forked_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process in which plan tries what is imported by name has torch already, where each would import it again."""
    from adarem.plan.child_process import ChildProcess
    from tests.support.warm import forked_child

    monkeypatch.setattr(ChildProcess, "_started", forked_child())


@pytest.fixture(scope="session")
def adarem_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``python -m adarem`` as a user would and captures what it says."""

    def run(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "adarem", *arguments],
            cwd=cwd,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
