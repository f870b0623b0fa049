"""`make reproduce-…` hands every setting on as it was given, and executes nothing in it."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest

from adarem.plan.plan import make_plan
from adarem.run.batch_norm import normalised_together
from adarem.run.identity import config_hash
from tests.support import ROOT

HOSTILE = [
    "$(shell touch hacked)a$b",
    "$(error no)$$ ${IMAGENET} $(value IMAGENET)",
    "$(touch hacked) `touch hacked` ; touch hacked # && touch hacked",
    "a b 'c' \"d\" \\ \\\\ * ~ é",
    "${oc.env:HOME} \\${x} ${x",
    "a,b=[c]{d: e}(f)??? %j @",
    "two\nlines",
    "ends in \\",
]

SOONER = ["cluster=rehearsal", "scale.micro_batch_size=32"]  # than on two ranks a run: docs/start-up.md

Make = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make` in a copy of the checkout whose `adarem` writes down what it is given."""
    place = tmp_path / "checkout"
    for part in ("Makefile", "scripts/reproduce.sh", "scripts/setup.sh", "pyproject.toml", "constraints.txt"):
        (place / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, place / part)
    (place / ".venv" / "bin").mkdir(parents=True)
    python = place / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')  # a link would not find this environment's packages
    stub = place / ".venv" / "bin" / "adarem"
    stub.write_text('#!/bin/sh\nprintf "%s\\0" "$@" >arguments\nprintf %s "$IMAGENET" >imagenet\n')
    commands = tmp_path / "commands"  # a cluster's login node, so that nothing is asked of this machine
    commands.mkdir()
    (commands / "sbatch").write_text("#!/bin/sh\n")
    for command in (stub, python, commands / "sbatch"):
        command.chmod(0o755)
    (place / ".venv" / ".harness-ready").touch()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {
            k: v
            for k, v in os.environ.items()
            if k not in ("SEEDS", "GRID", "OVERRIDES", "IMAGENET", "PTB", "MAKEFLAGS")
        }
        env["PATH"] = f"{commands}:{env['PATH']}"
        done = subprocess.run(["make", *arguments], cwd=place, env=env, capture_output=True, text=True, timeout=300)
        assert not list(tmp_path.rglob("hacked")), done
        return done

    return run


def arguments(place: Path) -> list[str]:
    return (place / "checkout" / "arguments").read_text().split("\0")[:-1]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_path_gets_through(name: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / name
    root.mkdir()
    done = make("reproduce-table2", f"IMAGENET={root}")
    assert done.returncode == 0, done.stderr
    given = arguments(tmp_path)
    assert given[:2] == ["launch", "grid=table2"]
    monkeypatch.setenv("IMAGENET", (tmp_path / "checkout" / "imagenet").read_text())
    data = make_plan([*given[1:], "optimizer=adam"]).runs[0].config.data
    assert (data.name, data.root, data.beton_dir) == ("imagenet", str(root), f"{root}/ffcv")


@pytest.mark.parametrize("name", [name for name in HOSTILE if "'" not in name])
def test_overrides_get_through(name: str, make: Make, tmp_path: Path) -> None:
    done = make("reproduce-table2", f"OVERRIDES=scale.epochs=3 'runs_dir={name}'\n results_dir=/a\\ b")
    assert done.returncode == 0, done.stderr
    assert arguments(tmp_path) == [
        "launch", "grid=table2", "data=digits", *SOONER, "scale.epochs=3", f"runs_dir={name}", "results_dir=/a b",
    ]  # fmt: skip


def test_the_digits_take_a_rank_a_run_unless_overrides_say_otherwise(make: Make, tmp_path: Path) -> None:
    expected = {
        ("reproduce-table1",): SOONER,
        ("search-table2", "OVERRIDES=seeds=[7] data.holdout=287"): SOONER,
        ("grid", "GRID=lambda"): SOONER,
        ("grid", "GRID=mine"): [],
        ("reproduce-table3",): [],
        ("reproduce-table2", "OVERRIDES=cluster.ranks_per_node=1"): [],
        ("reproduce-table2", "OVERRIDES=cluster=slurm"): [],
        ("reproduce-table2", "OVERRIDES=scale=smoke"): [],
        ("reproduce-table2", "OVERRIDES=scale.global_batch_size=128"): [],
        ("reproduce-table2", "OVERRIDES=model=timm:vit_tiny_patch16_224"): [],
        ("reproduce-table2", f"IMAGENET={tmp_path}", "OVERRIDES=cluster=local"): [],
    }
    for given, words in expected.items():
        assert make(*given).returncode == 0
        found = [word for word in arguments(tmp_path)[3:] if word in SOONER]
        assert found == words, given


def test_the_digits_are_the_same_runs_on_a_rank_a_run(tmp_path: Path) -> None:
    """As those that two ranks train: hash, name and images normalised together; two cells stay on two ranks."""
    words = ["grid=table2", "data=digits", f'runs_dir="{tmp_path}"']
    before, now = make_plan(words).runs, make_plan([*words, *SOONER]).runs
    assert [run.config.run_name for run in now] == [run.config.run_name for run in before]
    assert [config_hash(run.config) for run in now] == [config_hash(run.config) for run in before]
    assert {normalised_together(run.config) for run in (*before, *now)} == {32}
    ranks = {run.config.optimizer.name: run.config.cluster.world_size for run in now}
    assert ranks == {"sgdm": 2, "adam": 1, "adamw": 1, "adabound": 1, "rmsprop": 1, "adarem": 2}
    others = make_plan(["grid=lambda", *words[1:], *SOONER]).runs
    assert {run.config.cluster.world_size for run in others} == {1}


def test_the_embedded_data_take_searched_settings(make: Make, tmp_path: Path) -> None:
    """Of a search that is committed, unless OVERRIDES say what is trained; ImageNet takes the paper's."""
    selected = "results/rehearsals/table2_search-digits/selected.yaml"
    place = tmp_path / "checkout" / selected
    place.parent.mkdir(parents=True)
    shutil.copy(ROOT / selected, place)
    searched = [f"grid.settings_from={selected}"]
    expected = {
        ("reproduce-table2",): searched,
        ("reproduce-table2", "OVERRIDES=cluster.ranks_per_node=1 runs_dir=/optimizer.lr"): searched,
        ("reproduce-table2", "OVERRIDES='optimizer.lr=0.4'"): [],
        ("reproduce-table2", "OVERRIDES=runs_dir=/a scale=smoke"): [],
        ("reproduce-table2", "OVERRIDES=++train.clip_grad_norm=1"): [],
        ("reproduce-table1",): [],
    }
    for given, words in expected.items():
        assert make(*given).returncode == 0
        assert [word for word in arguments(tmp_path) if word.startswith("grid.")] == words, given
    assert make("reproduce-table2", f"IMAGENET={tmp_path}").returncode == 0
    assert "cluster=slurm" in arguments(tmp_path) and not any("settings_from" in w for w in arguments(tmp_path))


@pytest.mark.parametrize("grid", ["table1", "table2"])
def test_what_make_reproduce_plans_on_the_digits(grid: str, tmp_path: Path) -> None:
    """Every cell of the table has settings of the search."""
    words = [f"grid={grid}", "data=digits", f'runs_dir="{tmp_path}"']
    plan = make_plan([*words, f'grid.settings_from="{ROOT}/results/rehearsals/{grid}_search-digits/selected.yaml"'])
    assert plan.folder.name == f"{grid}-digits-searched"
    own = [run.config.optimizer for run in make_plan(words).runs]
    searched = [run.config.optimizer for run in plan.runs]
    assert [o.name for o in searched] == [o.name for o in own]
    assert all((a.lr, a.weight_decay) != (b.lr, b.weight_decay) for a, b in zip(own, searched, strict=True))


def test_quotes_in_overrides(make: Make, tmp_path: Path) -> None:
    assert make("reproduce-table1", """OVERRIDES=runs_dir='/a b' cluster.extra='["--qos=high"]' ""a""").returncode == 0
    assert arguments(tmp_path)[3:] == ["runs_dir=/a b", 'cluster.extra=["--qos=high"]', "a"]
    done = make("reproduce-table1", "OVERRIDES=runs_dir='/a b")
    assert "reproduce-table1: OVERRIDES: No closing quotation; quote it as after `adarem launch`" in done.stderr
    assert done.returncode != 0 and "Traceback" not in done.stderr


def test_any_grid(make: Make, tmp_path: Path) -> None:
    """The data are those of OVERRIDES, else those that the grid's own settings name, else the embedded digits."""
    configs = tmp_path / "checkout" / "configs" / "grid"
    configs.mkdir(parents=True)
    (configs / "plain.yaml").write_text("name: plain\n")
    (configs / "mine.yaml").write_text("settings: [scale.epochs=2, data=folder, data.root=/my/images]\n")
    expected = {
        ("GRID=plain",): ["data=digits"],
        ("GRID=mine",): [],
        ("GRID=table3",): ["data=pydoc"],
        ("GRID=plain", "OVERRIDES=data=pydoc model=awd_lstm"): ["data=pydoc", "model=awd_lstm"],
        ("GRID=plain", f"IMAGENET={tmp_path}"): ["data=imagenet", "data.root=${oc.env:IMAGENET}", "cluster=slurm"],
        ("GRID=mine", f"IMAGENET={tmp_path}", "SEEDS=0 1"): ["seeds=[0,1]"],
        ("GRID=no such grid",): ["data=digits"],  # `adarem launch` says so
    }
    for given, words in expected.items():
        done = make("grid", *given)
        assert done.returncode == 0, done.stderr
        assert arguments(tmp_path) == ["launch", f"grid={given[0].removeprefix('GRID=')}", *words]
    done = make("grid")
    assert done.returncode != 0 and done.stderr.startswith("grid: GRID: missing; give the name of a file")


@pytest.mark.parametrize("seeds", ["0 1 2", " 0\n1\t2 "])
def test_seeds(seeds: str, make: Make, tmp_path: Path) -> None:
    assert make("reproduce-table2", f"SEEDS={seeds}").returncode == 0
    assert arguments(tmp_path)[-1] == "seeds=[0,1,2]"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_seeds_stay_one_word(name: str, make: Make, tmp_path: Path) -> None:
    assert make("reproduce-table2", f"SEEDS={name}").returncode == 0
    assert arguments(tmp_path)[5:] == [f"seeds=[{','.join(name.split())}]"]


@pytest.mark.parametrize("variable", ["IMAGENET", "PTB", "SEEDS", "GRID", "OVERRIDES", "PYTHON", "ROUNDS"])
def test_make_executes_nothing(variable: str, make: Make) -> None:
    for target in ("reproduce-table2", "reproduce-table3", "grid", "setup", "torture", "help"):
        make("-n", target, f"{variable}=$(shell touch hacked)`touch hacked`$$(touch hacked)")


def test_every_source_file_is_in_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["adarem"]
    package = ROOT / "src" / "adarem"
    files = [p for p in package.rglob("*.*") if p.parent.name != "__pycache__"]
    others = [str(p.relative_to(package)) for p in files if p.suffix != ".py"]
    assert others and all(any(fnmatch(name, pattern) for pattern in patterns) for name in others), others
