"""A run is one network, optimizer, settings and seed. Whatever else lies in a sweep's folder changes no figure."""

import shutil

import numpy as np
import pytest
import yaml
from scipy import stats

from adarem.report.claims.entries import Claim
from adarem.report.claims.judge import judge
from adarem.report.load import load_sweep
from adarem.report.provenance import problems
from adarem.report.tables import render, times
from adarem.report.tables.runs import to_csv
from adarem.report.tables.table import build, read_paper
from tests.support.sweeps import finish, make_config, write_grid

ADAREM, SGDM = [71.0, 71.3, 71.1], [70.5, 70.6, 70.8]
CLAIM = Claim("id", "a sentence", "Table 2", "table2", ("resnet18",), "adarem", "top1", "higher", against=("sgdm",))


@pytest.fixture
def folder(dirs):
    folder = write_grid(dirs[0], seeds=[0, 1, 2])
    for seed in range(3):
        finish(folder, make_config("resnet18", "adarem", seed), ADAREM[seed])
        finish(folder, make_config("resnet18", "sgdm", seed), SGDM[seed])
    return folder


def figures(folder, results):
    """All that a report says in numbers."""
    sweep = load_sweep(folder)
    table = build(sweep, read_paper(sweep.spec, results))
    judged = judge(CLAIM, {"table2": sweep})
    texts = [render.to_csv(table), times.to_csv(table), to_csv(sweep.runs), *render.test_notes(table)]
    return [*texts, *render.power_notes(table), judged.status, *judged.evidence]


def edit(run, **changed):
    """Its config.yaml by hand."""
    path = run / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changed))


def test_a_copied_folder_is_no_fourth_seed(folder, dirs):
    before = figures(folder, dirs[1])
    shutil.copytree(folder / "resnet18-adarem-s0", folder / "resnet18-adarem-s0.bak")
    assert figures(folder, dirs[1]) == before
    sweep = load_sweep(folder)
    (line,) = problems(sweep)
    assert line.startswith("table2/resnet18-adarem-s0.bak: its config.yaml is that of resnet18-adarem-s0: a copy")
    cell = build(sweep, read_paper(sweep.spec, dirs[1])).cells[0:6]
    assert [(c.optimizer, c.n) for c in cell if c.values] == [("sgdm", "3"), ("adarem", "3")]


@pytest.mark.parametrize("names", [["a", "z"], ["resnet18-adarem-s00", "resnet18-adarem-s3", "resnet18-sgdm-s0-copy"]])
def test_copies_under_any_name(folder, dirs, names):
    before = figures(folder, dirs[1])
    for i, name in enumerate(names):
        shutil.copytree(folder / ("resnet18-sgdm-s1" if i % 2 else "resnet18-adarem-s2"), folder / name)
    assert figures(folder, dirs[1]) == before
    assert len(problems(load_sweep(folder))) == len(names)


def test_a_copy_with_an_edited_config_is_a_copy(folder, dirs):
    """Named and configured as a seed of its own; its result is of another run."""
    shutil.rmtree(folder / "resnet18-adarem-s2")
    before = figures(folder, dirs[1])
    shutil.copytree(folder / "resnet18-adarem-s0", folder / "resnet18-adarem-s2")
    edit(folder / "resnet18-adarem-s2", cell="resnet18-adarem-s2", seed=2)
    assert figures(folder, dirs[1]) == before
    (line,) = problems(load_sweep(folder))
    assert "resnet18-adarem-s2: its result.json is that of resnet18-adarem-s0; it is not counted" in line


def test_a_seed_run_twice_does_not_hide_that_another_is_missing(folder, dirs):
    shutil.rmtree(folder / "resnet18-adarem-s2")
    run = finish(folder, make_config("resnet18", "adarem", 0), 75.0)  # nothing new: the folder is there
    shutil.copytree(run.path, folder / "resnet18-adarem-again-s0")
    edit(folder / "resnet18-adarem-again-s0", cell="resnet18-adarem-again-s0")
    result = yaml.safe_load((run.path / "result.json").read_text()) | {"config_hash": "f" * 16}
    (folder / "resnet18-adarem-again-s0" / "result.json").write_text(
        str(result).replace("'", '"').replace("None", "null").replace("False", "false")
    )
    sweep = load_sweep(folder)
    table = build(sweep, read_paper(sweep.spec, dirs[1]))
    (cell,) = [c for c in table.cells if (c.optimizer, c.metric) == ("adarem", "top1")]
    assert (cell.n, cell.verdict) == ("2 of 3", "pending")
    assert any("seed 0 of this cell again, which resnet18-adarem-s0 is" in line for line in problems(sweep))
    judged = judge(CLAIM, {"table2": sweep})
    assert judged.status == "undecided" and "AdaRem, seed 2: no readable run" in judged.evidence[0]


def test_a_seed_off_the_grid_is_not_counted(folder, dirs):
    before = figures(folder, dirs[1])
    finish(folder, make_config("resnet18", "adarem", 7), 99.0)
    assert figures(folder, dirs[1]) == before
    (line,) = problems(load_sweep(folder))
    assert "resnet18-adarem-s7: seed 7 is none of the grid's (0, 1, 2); it is not counted" in line


def test_of_two_runs_of_a_seed_the_planned_one_counts(dirs):
    folder = write_grid(dirs[0], seeds=[0], runs=["resnet18-adarem-s0"])
    finish(folder, make_config("resnet18", "adarem", 0), 71.0)
    run = finish(folder, make_config("resnet18", "adarem", 0), 71.0).path
    shutil.copytree(run, folder / "a-s0")
    edit(folder / "a-s0", cell="a-s0")
    assert [r.dir.path.name for r in load_sweep(folder).runs] == ["resnet18-adarem-s0"]


def test_cells_count_the_grids_seeds_as_claims_do(dirs):
    """Of SGDM one seed was planned, of AdaRem three: the grid's seeds are three for both."""
    names = ["resnet18-sgdm-s0", *(f"resnet18-adarem-s{seed}" for seed in range(3))]
    folder = write_grid(dirs[0], seeds=[0, 1, 2], runs=names)
    finish(folder, make_config("resnet18", "sgdm", 0), 70.0)
    for seed in range(3):
        finish(folder, make_config("resnet18", "adarem", seed), ADAREM[seed])
    sweep = load_sweep(folder)
    table = build(sweep, read_paper(sweep.spec, dirs[1]))
    of = {c.optimizer: (c.n, c.verdict) for c in table.cells if c.metric == "top1"}
    assert of["sgdm"] == ("1 of 3", "pending") and of["adarem"][0] == "3" and of["adam"][0] == "—"
    assert "SGDM, seed 1: no readable run" in judge(CLAIM, {"table2": sweep}).evidence[0]


def test_names_carry_no_figure(dirs):
    """The same runs under other names, in folder, config and plan alike, so that they are read in another order."""
    found = []
    for turned in (False, True):
        runs_dir = dirs[0] / str(turned)
        folder = write_grid(runs_dir, seeds=[0, 1, 2])
        for seed in (2, 0, 1) if turned else (0, 1, 2):
            for optimizer, values in (("adarem", ADAREM), ("sgdm", SGDM)):
                config = make_config("resnet18", optimizer, seed)
                run = finish(folder, config, values[seed])
                if turned:
                    name = f"{'zxy'[seed]}-{optimizer}"
                    run.path.rename(folder / name)
                    edit(folder / name, cell=name)
        table = build(sweep := load_sweep(folder), read_paper(sweep.spec, dirs[1]))
        assert len(sweep.runs) == 6
        found.append([(c.summary.mean, c.summary.sd, c.n, c.verdict) for c in table.cells if c.values])
        found[-1] += [*render.test_notes(table), *render.power_notes(table)]
    assert found[0] == found[1]
    assert found[0][0][:2] == pytest.approx((np.mean(SGDM), stats.tstd(SGDM)))
