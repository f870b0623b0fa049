"""The ledger against the grids: every claim finds its cells among those that its grid plans."""

import csv
from dataclasses import replace

import pytest
from report_factory import finish

from adarem.compose import config_dir
from adarem.plan import make_plan
from adarem.report import claims, draw, figures, make_report
from adarem.report.collect import read_runs
from adarem.report.make import load

LEDGER = claims.read_claims(config_dir().parent / "results")
GRIDS = sorted({c.grid for c in LEDGER} | {c.against_grid for c in LEDGER if c.against_grid})


def rehearse(dirs, grid):
    """A rehearsal as it is planned, every cell finished with figures of its own for two seeds."""
    data = "pydoc" if grid == "table3" else "digits"
    plan = make_plan([f"grid={grid}", f"data={data}", f"runs_dir={dirs[0]}", "seeds=[0,1]"])
    plan.write()
    for i, cell in enumerate(plan.cells):
        run = finish(plan.folder, cell.config, 60.0 + 2.0 * i, loss=2.0 - 0.01 * i)
        run.write_result(run.result() | {"perplexity": 90.0 - i, "parameters": 10_000_000 - 1000 * i})
        run.append_oscillation({"epoch": cell.config.scale.epochs, "step": 1, "q_mean": 9.0 - i / 10})
    return plan.folder


@pytest.mark.parametrize("claim", LEDGER, ids=lambda c: c.id)
def test_the_grid_of_every_claim_exists(claim):
    for grid in filter(None, (claim.grid, claim.against_grid)):
        assert (config_dir() / "grid" / f"{grid}.yaml").is_file()


def test_a_rehearsal_of_every_grid_yields_verdicts(dirs):
    found = {grid: read_runs(rehearse(dirs, grid)) for grid in GRIDS}
    judged = {c.id: claims.judge(c, found) for c in LEDGER}
    assert {c: j.status for c, j in judged.items() if j.status == "not run" or len(j.runs) < 4} == {}
    assert all("not run" not in line for j in judged.values() for line in j.evidence)
    # each compares what its sentence says: cells that are not there leave it without a verdict
    once = next(c for c in LEDGER if c.id == "lambda-once-an-epoch-is-enough")
    line = judged[once.id].evidence[0]
    assert "ResNet-18: AdaRem (λ 0.999 once an epoch) against AdaRem (λ 0.999 at every step)" in line
    assert claims.judge(replace(once, against_variant="decay_every=never"), found).status == "not run"


def test_the_rehearsed_column_does_not_depend_on_which_grid_is_reported(dirs):
    for grid in ("table2", "table3", "lambda"):  # of digits, text, digits
        rehearse(dirs, grid)
    found = {}
    for grid in ("table3", "lambda"):
        make_report(grid=grid, runs_dir=dirs[0], results_dir=dirs[1])
        found[grid] = (dirs[1] / "claims.csv").read_text(), (dirs[1] / "claims.md").read_text()
    assert found["table3"] == found["lambda"]
    rows = {r["id"]: r["in_rehearsal"] for r in csv.DictReader(found["lambda"][0].splitlines())}
    for claim in LEDGER:
        here = {claim.grid, claim.against_grid or claim.grid} <= {"table2", "table3", "lambda"}
        assert (rows[claim.id] != "—") == here, claim.id
    assert "no evidence: lambda-digits, table2-digits, table3-" in found["lambda"][1]


def test_the_table_and_the_ledger_of_the_lambda_grid(dirs):
    rehearse(dirs, "lambda")
    text = make_report(grid="lambda", runs_dir=dirs[0], results_dir=dirs[1])
    assert "REHEARSAL of lambda" in text
    md = (dirs[1] / "tables/lambda.md").read_text()
    for label in ("λ 0.999 once an epoch", "λ 0.999 at every step", "λ 1, never decaying"):
        assert f"ResNet-18 Top-1 ({label})" in md
    assert (
        md.index("once an epoch)") < md.index("at every step)") < md.index("never decaying)") < md.index("(λ 0.99 once")
    )
    assert "Settings off the grid's own" not in md
    assert "ResNet-18 Top-1: AdaRem (λ 1, never decaying) − AdaRem (λ 0.999 once an epoch) = +8.00" in md
    assert (dirs[1] / "figures/lambda-curves.png").exists() and (dirs[1] / "tables/lambda-time.md").exists()
    drawn = draw.curves(load(dirs[0] / "lambda-digits", dirs[1]), figures.CURVES, "").axes[0].get_lines()
    assert [line.get_label() for line in drawn][:2] == ["λ 0.999 once an epoch (n=2)", "λ 0.999 at every step (n=2)"]
    assert len({line.get_color() for line in drawn}) == 5
    with open(dirs[1] / "claims.csv", newline="") as f:
        rows = {r["id"]: r for r in csv.DictReader(f)}
    # 60 and 62 against 64 and 66, no evidence: −4 ± 6.1, so the rule leaves it open
    row = rows["lambda-once-an-epoch-is-enough"]
    assert (row["status"], row["evidence"]) == ("not run", "")
    assert row["in_rehearsal"] == "(REHEARSAL: undecided)"
    assert rows["adarem-matches-sgdm"]["in_rehearsal"] == "—"
    assert "lambda-digits" in (dirs[1] / "claims.md").read_text()
