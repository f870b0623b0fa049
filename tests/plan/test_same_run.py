"""A default that is spelled out is the same run; a run of before under another name is found and not planned again."""

from pathlib import Path

import pytest

from adarem.plan.plan import Plan, make_plan
from adarem.run.config import RunConfig, from_dict, to_dict
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.identity import config_hash
from adarem.run.sweep import LONGEST_NAME, read_sweep

PLAIN = ("data=digits", "optimizer=adarem")


def plan(*words: str) -> Plan:
    return make_plan([*PLAIN, *words])


def names(*words: str) -> list[str]:
    return [p.config.run_name for p in plan(*words).runs]


def test_a_default_that_is_spelled_out_is_the_same_run() -> None:
    (plain,) = plan().runs
    spelled = (
        "optimizer.weight_decay=1e-4", "optimizer.weight_decay=0.0001", "train.compile=false", "schedule=cosine",
        "optimizer.eps=0", "schedule.warmup_epochs=0.0", "model=resnet18",
    )  # fmt: skip
    for words in (*((word,) for word in spelled), ("schedule=cosine", "train.compile=false", "optimizer.lam=0.999")):
        (found,) = plan(*words).runs
        assert found.config == plain.config and config_hash(found.config) == config_hash(plain.config), words
    assert names("schedule=step", "schedule.milestones=[3]", "train.compile=false") == [
        "resnet18-adarem-schedule=step-milestones=3-s0"
    ]


def test_numbers_are_written_in_one_way() -> None:
    assert names("optimizer.lr=2") == names("optimizer.lr=2.0") == ["resnet18-adarem-lr=2.0-s0"]
    assert names("optimizer.lam=1", "optimizer.weight_decay=5e-4") == ["resnet18-adarem-lam=1.0-weight_decay=0.0005-s0"]
    assert names("optimizer.lr=1,1.0,1e0,2") == ["resnet18-adarem-lr=1.0-s0", "resnet18-adarem-lr=2.0-s0"]
    hashes = {config_hash(plan(f"optimizer.lam={text}").runs[0].config) for text in ("1", "1.0", "1e0")}
    assert len(hashes) == 1


def test_two_runs_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "torch_NAdam.yaml").write_text("name: torch:NAdam\nlabel: Other\nlr: 0.2\n")
    monkeypatch.setenv("ADAREM_CONFIGS", str(tmp_path))
    with pytest.raises(UserError, match="^resnet18-torch_NAdam-lr=0.1-s0: two different runs of the grid"):
        make_plan(["data=digits", "optimizer=torch:NAdam,torch_NAdam", "optimizer.lr=0.1"])


def test_values_on_an_axis_keep_their_names() -> None:
    """A default among them, too: tables and the selection of a search read them there."""
    found = plan("optimizer.lr=0.4,1")
    assert [p.config.run_name for p in found.runs] == ["resnet18-adarem-lr=0.4-s0", "resnet18-adarem-lr=1.0-s0"]
    assert [dict(p.config.overrides) for p in found.runs] == [{"optimizer.lr": "0.4"}, {"optimizer.lr": "1.0"}]
    assert names("grid=lambda")[0] == "resnet18-adarem-s0"  # λ 0.999: what the grid leaves at its default


def _renamed(config: RunConfig, name: str, **overrides: object) -> RunConfig:
    return from_dict(to_dict(config) | {"cell": name, "overrides": overrides})


@pytest.mark.parametrize("written", ["0.0001", "1e-4"])
def test_a_run_of_before_is_not_planned_again(written: str, tmp_path: Path) -> None:
    (new,) = plan(f"runs_dir={tmp_path}").runs
    old = f"resnet18-adarem-weight_decay={written}-s0"
    RunDir(tmp_path / "table2-digits" / old).freeze(_renamed(new.config, old, **{"optimizer.weight_decay": written}))
    for words in ((), ("optimizer.weight_decay=1e-4",), ("seeds=[0,1]", "cluster.ranks_per_node=1")):
        found = plan(f"runs_dir={tmp_path}", *words)
        assert (found.runs[0].config.run_name, found.runs[0].new) == (old, False)
    found.write()
    kept = RunDir(tmp_path / "table2-digits" / old).config()
    assert kept.run_name == old and kept.cluster.ranks_per_node == 1
    assert read_sweep(found.folder).runs == (old, "resnet18-adarem-s1")
    assert plan(f"runs_dir={tmp_path}", "optimizer.weight_decay=5e-4").runs[0].new


def test_a_value_of_an_axis_is_not_taken_for_a_plain_run(tmp_path: Path) -> None:
    on_axis = plan(f"runs_dir={tmp_path}", "optimizer.lr=0.4,0.2")
    on_axis.write()
    plain = plan(f"runs_dir={tmp_path}")
    assert plain.runs[0].new and plain.runs[0].config.run_name == "resnet18-adarem-s0"
    plain.write()
    (tmp_path / "table2-digits" / "resnet18-adarem-lr=0.4-s0" / "config.yaml").unlink()
    (tmp_path / "table2-digits" / "resnet18-adarem-lr=0.4-s0").rmdir()
    again = plan(f"runs_dir={tmp_path}", "optimizer.lr=0.4,0.2")
    assert [p.new for p in again.runs] == [True, False]


def test_a_long_name_of_before_is_kept(tmp_path: Path) -> None:
    words = ("optimizer.weight_decay=5e-4", "train.label_smoothing=0.05", "schedule.warmup_epochs=1")
    (new,) = plan(f"runs_dir={tmp_path}", *words).runs
    assert len(new.config.run_name) <= LONGEST_NAME and "--" in new.config.run_name
    old = "resnet18-adarem-weight_decay=0.0005-warmup_epochs=1-label_smoothing=0.05-s0"
    RunDir(tmp_path / "table2-digits" / old).freeze(_renamed(new.config, old, **new.config.overrides))
    found = plan(f"runs_dir={tmp_path}", *words)
    assert found.runs[0].config.run_name == old and not found.runs[0].new
    found.write()
    damaged = tmp_path / "table2-digits" / "damaged"
    damaged.mkdir()
    (damaged / "config.yaml").write_text("[")
    assert not plan(f"runs_dir={tmp_path}", *words).runs[0].new
