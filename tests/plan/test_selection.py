"""The settings that a finished search selects, and the grid that takes them."""

from pathlib import Path

import pytest

from adarem.plan.plan import make_plan
from adarem.plan.selection import selected_settings
from adarem.run.directory import RunDir
from adarem.run.errors import UserError


def finish(run: RunDir, value: float | None) -> None:
    run.start_attempt({})
    result = {"status": "diverged"} if value is None else {"status": "done", "val_perplexity": value, "perplexity": 9}
    run.write_result(result)


def test_the_final_table_takes_the_searchs_selected_settings(tmp_path: Path) -> None:
    common = ["data=pydoc", f'runs_dir="{tmp_path}"']
    search = make_plan(["grid=table3_search", *common])
    by_optimizer = [c.config.optimizer.name for c in search.runs]
    assert {o: by_optimizer.count(o) for o in set(by_optimizer)} == {"sgdm": 10, "adam": 10, "adarem": 10}
    settled = "settings of configs/tuned, no table3_search-pydoc in"
    assert settled in make_plan(["grid=table3", *common]).spec.selection
    search.write()
    with pytest.raises(UserError, match=r"30 of 30 runs of the search are not finished; .* grid.settings_from=null"):
        make_plan(["grid=table3", *common])
    assert make_plan(["grid=table3", *common, "grid.settings_from=null"]).spec.selection == "final epoch"
    for i, cell in enumerate(search.runs):
        o = cell.config.optimizer
        wins = (o.name, o.lr, o.hparams.get("momentum", o.hparams.get("beta1", o.hparams.get("beta")))) in {
            ("sgdm", 1.0, 0.5), ("adam", 0.01, 0.0), ("adarem", 60.0, 0.999),
        }  # fmt: skip
        finish(cell.run, 80.0 if wins else None if i % 5 == 0 else 90.0 + i)
    plan = make_plan(["grid=table3", *common])
    chosen = {c.config.optimizer.name: c.config.optimizer for c in plan.runs}
    assert (chosen["sgdm"].lr, chosen["sgdm"].hparams["momentum"]) == (1.0, 0.5)
    assert (chosen["adam"].lr, chosen["adam"].hparams["beta1"]) == (0.01, 0.0)
    assert (chosen["adarem"].lr, chosen["adarem"].hparams["beta"]) == (60.0, 0.999)
    assert plan.spec.selection.endswith("lowest val_perplexity of 30 runs in table3_search-pydoc")
    assert [c.config.run_name for c in plan.runs] == ["awd_lstm-sgdm-s0", "awd_lstm-adam-s0", "awd_lstm-adarem-s0"]
    # what the user settles stays settled
    own = make_plan(["grid=table3", *common, "optimizer=adam", "optimizer.lr=0.5"]).runs[0].config.optimizer
    assert (own.lr, own.hparams["beta1"]) == (0.5, 0.0)
    for cell in search.runs:
        if cell.config.optimizer.name == "adam":
            finish(cell.run, None)
    with pytest.raises(UserError, match="every run of adam diverged"):
        selected_settings(search.folder)
