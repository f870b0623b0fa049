"""The settings of a finished search, and the second sweep that takes them."""

import re
from pathlib import Path

import pytest

from adarem.plan.plan import Plan, make_plan
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.selection import FILE, select, write_selection
from adarem.run.sweep import read_sweep


def finish(run: RunDir, value: float | None) -> None:
    run.start_attempt({})
    result = {"status": "diverged"} if value is None else {"status": "done", "val_perplexity": value, "perplexity": 9}
    run.write_result(result)


@pytest.fixture
def common(tmp_path: Path) -> list[str]:
    return ["data=pydoc", f'runs_dir="{tmp_path}"']


@pytest.fixture
def searched(common: list[str]) -> Plan:
    """A search whose every run is finished, and its selected.yaml."""
    search = make_plan(["grid=table3_search", *common])
    search.write()
    for i, cell in enumerate(search.runs):  # of each optimizer its fourth trial is the best
        finish(cell.run, 80.0 if i % 16 == 3 else None if i % 5 == 0 else 90.0 + i)
    write_selection(search.folder, select(search.folder))
    return search


def test_the_selected_settings_make_a_second_sweep(common: list[str], searched: Plan) -> None:
    by_optimizer = [c.config.optimizer.name for c in searched.runs]
    assert {o: by_optimizer.count(o) for o in set(by_optimizer)} == {"sgdm": 16, "adam": 16, "adarem": 16}
    before = make_plan(["grid=table3", *common])
    before.write()
    plan = make_plan(["grid=table3", *common, "grid.settings_from=table3_search"])
    plan.write()
    assert (before.folder.name, plan.folder.name) == ("table3-pydoc", "table3-pydoc-searched")
    chosen = {c.config.optimizer.name: c.config.optimizer for c in plan.runs}
    best = {c.config.optimizer.name: c.config.optimizer for c in searched.runs[3::16]}
    assert chosen == best and len({o.lr for o in best.values()} | {0.1, 0.003, 10.0, 30.0}) == 7
    assert "beta2" in chosen["adam"].hparams and chosen["adam"].hparams["beta2"] != 0.999
    assert [c.config.run_name for c in plan.runs] == ["awd_lstm-sgdm-s0", "awd_lstm-adam-s0", "awd_lstm-adarem-s0"]
    spec = read_sweep(plan.folder)
    assert spec.selection.startswith("final epoch; settings selected in table3_search-pydoc: lowest val_perplexity")
    assert spec.searched is not None and spec.searched.sweep == "table3_search-pydoc"
    assert spec.searched.of("adam") == "searched, 16 trials" and spec.searched.of("sgd") == "not searched"
    # The reproduction keeps its own, whatever was searched, and is planned again as before.
    again = make_plan(["grid=table3", *common])
    assert [r.config for r in again.runs] == [r.config for r in before.runs] and again.spec.selection == "final epoch"
    # By its file, too; and what the user settles stays settled.
    by_file = make_plan(["grid=table3", *common, f'grid.settings_from="{searched.folder / FILE}"'])
    assert [r.config for r in by_file.runs] == [r.config for r in plan.runs]
    own = [*common, "grid.settings_from=table3_search", "optimizer=adam", "optimizer.lr=0.5"]
    config = make_plan(["grid=table3", *own]).runs[0].config.optimizer
    assert (config.lr, config.hparams["beta1"]) == (0.5, best["adam"].hparams["beta1"])


def test_a_search_without_a_selection_is_refused(common: list[str]) -> None:
    with pytest.raises(
        UserError, match=r"table3_search-pydoc/selected.yaml: no such file; `adarem report` of the search"
    ):
        make_plan(["grid=table3", *common, "grid.settings_from=table3_search"])


def test_a_changed_selection_is_noticed(common: list[str], searched: Plan) -> None:
    words = ["grid=table3", *common, "grid.settings_from=table3_search"]
    make_plan(words).write()
    file = searched.folder / FILE
    old = file.read_text()
    file.write_text(old.replace("planned: 16", "planned: 17"))
    with pytest.raises(UserError, match=r"selected.yaml: changed since .*table3-pydoc-searched was planned from it"):
        make_plan(words)
    file.write_text(old)
    assert not any(r.new for r in make_plan(words).runs)


def test_final_runs_have_other_seeds_than_the_search(common: list[str], searched: Plan) -> None:
    words = ["grid=table3", *common, "grid.settings_from=table3_search"]
    with pytest.raises(UserError, match=r"seeds=\[0, 1000\]: the search table3_search-pydoc .* seeds=\[0,1\]"):
        make_plan([*words, "seeds=[0,1000]"])
    assert len(make_plan([*words, "seeds=[0,1]"]).runs) == 6


def test_what_the_search_did_not_select_is_refused(common: list[str], searched: Plan) -> None:
    words = ["grid=table3", *common, "grid.settings_from=table3_search"]
    with pytest.raises(
        UserError, match=r"selected.yaml: has no settings for optimizer=adamw on awd_lstm; did you mean"
    ):
        make_plan([*words, "optimizer=adamw"])
    with pytest.raises(
        UserError, match=r"selected.yaml: has no settings for model=gpt; valid: awd_lstm; search it too"
    ):
        make_plan([*words, "model=gpt"])
    for cell in searched.runs:
        if cell.config.optimizer.name == "adam":
            finish(cell.run, None)
    write_selection(searched.folder, select(searched.folder))
    with pytest.raises(UserError, match="every trial of adam on awd_lstm diverged; search lower learning rates"):
        make_plan(words)
    assert make_plan([*words, "optimizer=sgdm"]).runs[0].config.optimizer == searched.runs[3].config.optimizer


def test_settings_are_moved_into_another_optimizer(common: list[str], searched: Plan) -> None:
    words = ["grid=table3", *common, "grid.settings_from=table3_search", "grid.settings_of={adarem:sgdm,adam:sgdm}"]
    plan = make_plan(words)
    plan.write()
    best = {c.config.optimizer.name: c.config.optimizer for c in searched.runs[3::16]}
    assert [c.config.optimizer.name for c in plan.runs] == ["sgdm", "adam", "adarem", "adam", "adarem"]
    own, moved = plan.runs[2].config, plan.runs[4].config
    assert own.optimizer == best["adarem"] and own.overrides == {}
    # Of SGDM's settings AdaRem knows the learning rate; the others are those of its file.
    assert moved.optimizer.lr == best["sgdm"].lr and moved.overrides == {"optimizer.lr": f"{best['sgdm'].lr}"}
    of_file = make_plan(["grid=table3", *common, "optimizer=adarem"]).runs[0].config.optimizer
    assert moved.optimizer.hparams == of_file.hparams
    spec = read_sweep(plan.folder)
    assert spec.settings_of == {"adarem": "sgdm", "adam": "sgdm"}
    assert spec.labels.overrides[f"lr={best['sgdm'].lr}"] == "settings of SGDM"
    # A plan of a part narrows nothing; what the user settles stays settled.
    part = [w for w in words if "settings_of" not in w] + ["optimizer=adam"]
    make_plan(part).write()
    after = read_sweep(plan.folder)
    assert after == spec and not any(r.new for r in make_plan(words).runs)
    assert len(make_plan([*words, "optimizer=adarem", "optimizer.lr=0.5"]).runs) == 1
    # Where nothing was selected for it, an optimizer is there with the other's settings alone.
    alone = ["grid=table3", *common, "grid.settings_from=table3_search"]
    of_sgd = make_plan([*alone, "grid.settings_of={sgd:sgdm}", "optimizer=sgd"])
    assert [r.config.optimizer.lr for r in of_sgd.runs] == [best["sgdm"].lr]
    with pytest.raises(UserError, match="has no settings for optimizer=adamw"):
        make_plan([*alone, "grid.settings_of={adam:adamw}"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["grid.settings_of={adarem:sgdm}"],
            "grid.settings_of: needs a search to take settings from; give grid.settings",
        ),
        (["grid.settings_from=x", "grid.settings_of={adarem:adarem}"], "needs another optimizer's settings"),
        (["grid.settings_from=x", "grid.settings_of={adarm:sgdm}"], "grid.settings_of: optimizer=adarm: no such file"),
        (["grid.settings_from=x", "grid.settings_of={rmsprop:sgdm}"], "rmsprop: no optimizer of the grid's axis"),
        (["grid.settings_from=x", "grid.settings_of=sgdm"], "grid.settings_of"),
    ],
)
def test_what_cannot_be_moved(common: list[str], words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        make_plan(["grid=table3", *common, *words])
