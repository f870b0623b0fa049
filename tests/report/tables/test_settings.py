"""The sheet of settings: what the paper states, what was tried here and in a search."""

import csv
import io

import pytest
import yaml

from adarem.report.load import load_sweep
from adarem.report.tables import render as tables
from adarem.report.tables.settings import fairness_sheet
from adarem.report.tables.table import build, read_paper
from adarem.resources import paper_file
from adarem.run.errors import UserError
from adarem.run.stated import read_stated
from tests.support.sweeps import finish, make_config, write_grid


def table(folder, results):
    sweep = load_sweep(folder)
    return build(sweep, read_paper(sweep.spec, results))


def text_config(optimizer: str, grid: str, overrides=None):
    """A cell of Table 3 or its search on embedded text."""
    from adarem.plan.plan import make_plan

    given = [f"{k}={v}" for k, v in (overrides or {}).items()]
    return make_plan([f"grid={grid}", "data=pydoc", f"optimizer={optimizer}", *given]).runs[0].config


def tried(t) -> dict[str, str]:
    header, rows, _ = fairness_sheet(t)
    return {row[0]: row[header.index("Tried here")] for row in rows}


def test_one_configuration_each_is_not_tuned(dirs, table2_runs):
    t = table(table2_runs, dirs[1])
    assert set(tried(t).values()) == {"1 configuration"}
    assert "so none was tuned" in " ".join(fairness_sheet(t)[2])


def test_several_configurations_are_not_called_one(dirs, table2_runs):
    finish(table2_runs, make_config("resnet18", "sgdm", overrides={"optimizer.weight_decay": 5e-4}), 70.0)
    t = table(table2_runs, dirs[1])
    assert tried(t)["SGDM"] == "2 configurations" and tried(t)["AdaRem"] == "1 configuration"
    notes = " ".join(fairness_sheet(t)[2])
    assert "none was tuned" not in notes and "none was picked for its result" in notes


def test_a_searchs_trials_are_counted(dirs):
    """As plan wrote them down: the sheet reads no other folder than the sweep's own."""
    searched = {"sweep": "table3_search-pydoc", "sha256": "0" * 64, "trials": {"awd_lstm": {"sgdm": 16}}}
    folder = write_grid(dirs[0], "table3", "pydoc", "rehearsal_text", searched=searched)
    for optimizer in ("sgdm", "adam"):
        finish(folder, text_config(optimizer, "table3"), 50.0, epochs=False)
    t = table(folder, dirs[1])
    assert tried(t)["SGDM"] == "1 configuration; searched, 16 trials"
    assert tried(t)["Adam"] == "1 configuration; not searched"
    assert "Ours are those of table3_search-pydoc, counted above" in " ".join(fairness_sheet(t)[2])


def test_trials_of_several_networks(dirs, table2_runs):
    trials = {"resnet18": {"sgdm": 8, "adarem": 1}, "resnet50": {"sgdm": 16}}
    write_grid(dirs[0], seeds=[0, 1, 2], searched={"sweep": "s", "sha256": "0" * 64, "trials": trials})
    t = table(table2_runs, dirs[1])
    assert tried(t)["SGDM"] == "1 configuration; searched, 8 to 16 trials"
    assert tried(t)["AdaRem"] == "1 configuration; searched, 1 trial"
    notes = " ".join(fairness_sheet(t)[2])
    assert "Searched here: the settings are those that s selected" in notes and "none was tuned" not in notes


def test_the_papers_settings_come_from_its_file(dirs, table2_runs):
    raw = yaml.safe_load(paper_file("settings.yaml", dirs[1]).read_text())
    raw["images"]["adarem"] = {"lr": 0.3, "beta": 0.9}
    (dirs[1] / "paper").mkdir(parents=True)
    for name in ("table2.csv", "settings.yaml"):
        (dirs[1] / "paper" / name).write_text(paper_file(name, dirs[1]).read_text())
    (dirs[1] / "paper" / "settings.yaml").write_text(yaml.safe_dump(raw))
    sheet = "\n".join(tables.markdown(table(table2_runs, dirs[1])).splitlines())
    assert "| AdaRem | 0.4 (ours) | 0.4 | 0.0001, decoupled, × lr | β 0.9 (paper), λ 0.999, decay every epoch," in sheet
    assert "| SGDM | 0.4 (paper) |" in sheet


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pictures": {}}, "pictures: no such name; "),
        ({"images": {"adabond": {"lr": 0.4}}}, "images: adabond: no such name; did you mean 'adabound'?"),
        ({"images": {"adarem": {"lamda": 0.9}}}, "images: adarem: lamda: no such name; did you mean 'lam'?"),
        ({"images": {"sgdm": {"lr": "1e-4"}}}, "images: sgdm: lr: needs a number, with a point: not '1e-4'"),
        ({"text": None}, "text: needs a mapping"),
        ({"figures": {"figure5": ["resnet19"]}}, "figures: figure5: resnet19: no such name; did you mean 'resnet1"),
    ],
)
def test_mistakes_in_that_file_are_one_line(dirs, change, message):
    raw = yaml.safe_load(paper_file("settings.yaml", dirs[1]).read_text()) | change
    (dirs[1] / "paper").mkdir(parents=True)
    (dirs[1] / "paper" / "settings.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError) as e:
        read_stated(paper_file("settings.yaml", dirs[1]))
    assert str(e.value).startswith(f"{dirs[1] / 'paper' / 'settings.yaml'}: {message}") and "\n" not in str(e.value)


def test_no_verdict_on_settings_off_the_grid(dirs, table2_runs):
    for seed in range(3):
        config = make_config("resnet18", "sgdm", seed, overrides={"schedule.warmup_epochs": 5})
        finish(table2_runs, config, 71.0 + 0.1 * seed)
    t = table(table2_runs, dirs[1])
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(t))))
    verdicts = {(r["variant"], r["verdict"]) for r in rows if r["optimizer"] == "sgdm" and r["metric"] == "top1"}
    assert ("", "within noise") in verdicts or ("", "reproduced") in verdicts
    assert ("warmup_epochs=5", "—") in verdicts and len(verdicts) == 2
    md = tables.markdown(t)
    assert "No verdict on rows with settings off the grid's own (warmup epochs 5): the paper's value is not of" in md


def test_a_recipes_settings_show_where_they_are_set(dirs):
    folder, recipe = write_grid(dirs[0]), {"min_lr": 0.001}
    changed = {"schedule": recipe, "optimizer": {"no_decay": ["bias", "norm"]}, "train": {"clip_grad_norm": 1.0}}
    changed |= {"model": {"init": "/weights.pt", "init_sha256": "ab" * 32}}
    finish(folder, make_config("resnet18", "sgdm", changed=changed), 70.0)
    finish(folder, make_config("resnet18", "adam"), 69.0)
    header, rows, notes = fairness_sheet(table(folder, dirs[1]))
    adam, sgdm = sorted((dict(zip(header, row, strict=True)) for row in rows if row[0] in ("SGDM", "Adam")), key=str)
    recipe = "cosine learning rate, no warm-up, falls to 0.001, gradient clipped to norm 1"
    assert sgdm["lr"] == f"0.4 (paper); {recipe}" and adam["lr"] == "0.004 (paper)"
    assert "ResNet-18 starts from the weights in /weights.pt (abababababab)." in notes
    assert sgdm["Weight decay"].endswith("; none on bias, norm") and "none" not in adam["Weight decay"]


def test_a_network_with_rates_of_its_own_has_rows_of_its_own(dirs):
    """And one that the paper has not is named; a label that says a size is not printed for another size."""
    from adarem.plan.plan import make_plan

    places = [f'runs_dir="{dirs[0]}"', f'results_dir="{dirs[1]}"']
    given = ["grid=table3", "data=pydoc", "model=awd_lstm,gpt", *places]
    plan = make_plan([*given, "optimizer=sgdm"])
    plan.write()
    sized = make_plan(["grid=table3", "data=pydoc", "model=gpt", "optimizer=sgdm", "model.layers=2", *places])
    for config in (*(r.config for r in plan.runs), sized.runs[0].config):
        finish(plan.folder, config, 90.0, epochs=False)
    t = table(plan.folder, dirs[1])
    _, rows, notes = fairness_sheet(t)
    rates = {row[0]: row[1] for row in rows}
    assert rates["SGDM, AWD-LSTM, small"] == "10 (ours)" and rates["SGDM, GPT"] == "0.1 (ours)"
    assert "No network of the paper: GPT 2 x 128, GPT 4 x 128." in notes
    assert t.labels.model("gpt") == "GPT"
