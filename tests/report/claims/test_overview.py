"""The claims against the grids: every claim finds its cells among those that its grid plans."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

from adarem.plan.plan import make_plan
from adarem.report import make_report
from adarem.report.claims.entries import read_claims, read_contradictions
from adarem.report.claims.judge import judge
from adarem.report.figures.curves import curves
from adarem.report.figures.panels import TEST_ERROR, TRAIN_LOSS
from adarem.report.load import load_sweep
from adarem.report.make import load_table
from adarem.resources import paper_file, shipped_configs
from tests.support.sweeps import finish

CLAIMS = read_claims(shipped_configs().parent / "results")
GRIDS = sorted({c.grid for c in CLAIMS} | {c.against_grid for c in CLAIMS if c.against_grid})


def rehearse(dirs, grid):
    """A rehearsal as it is planned, every cell finished with figures of its own for two seeds."""
    data = "pydoc" if grid == "table3" else "digits"
    plan = make_plan([f"grid={grid}", f"data={data}", f"runs_dir={dirs[0]}", "seeds=[0,1]"])
    plan.write()
    for i, cell in enumerate(plan.runs):
        w = i * i / 100  # so that no difference is the same with both seeds
        run = finish(plan.folder, cell.config, 60.0 + 2.0 * i + w, 80.0 + i + w, loss=2.0 - 0.01 * (i + w))
        run.write_result(run.result() | {"perplexity": 90.0 - i - w, "parameters": 10_000_000 - 1000 * i})
        for epoch in range(1, cell.config.scale.epochs + 1):
            q = {"q_mean": 9.0 - i / 10, "q_median_with_gradient": 4.0 - (i + w) / 10}
            run.append_oscillation({"epoch": epoch, "step": epoch, **q})
    return plan.folder


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.id)
def test_the_grid_of_every_claim_exists(claim):
    for grid in filter(None, (claim.grid, claim.against_grid)):
        assert (shipped_configs() / "grid" / f"{grid}.yaml").is_file()


def test_the_sentences_of_the_paper_are_all_there():
    """The paper's comparisons by place, each found by what it compares."""
    wanted = [
        ("adarem", "adamw", "mean_train_loss"),  # abstract: training speed
        ("adarem_s", "adamw", "mean_train_loss"),  # section 1, "including its spherical version"
        ("adarem_s", "adamw", "top1"),
        ("adarem", "sgd", "mean_train_loss"),  # sections 3.2.3 and 5: accelerates SGD
        ("adarem_s", "sgd", "mean_train_loss"),
        ("adarem_s", "sgdm", "mean_train_loss"),  # section 5: more efficiently than SGDM
        ("sgdm", "adam", "test_error@0.1"),  # Figure 4's caption
        ("sgdm", "adam", "train_loss@0.1"),
        ("sgdm", "adam", "test_error_rate@0.1-0.5"),
        ("sgdm", "adam", "train_loss_rate@0.1-0.5"),
        ("adarem", "sgd", "mean_q_median_with_gradient"),  # Figure 2
    ]
    there = {(c.optimizer, other, c.metric) for c in CLAIMS for other in c.against}
    assert [w for w in wanted if w not in there] == []
    small = {"mobilenet_v2_1.0", "mobilenet_v2_0.5", "shufflenet_v2_1.0", "shufflenet_v2_0.5"}
    assert any(set(c.model) == small and c.metric == "train_loss" for c in CLAIMS)  # 4.1.3: "their fitting ability"
    assert any(c.relation == "above" and c.optimizer == "sgdm" for c in CLAIMS)  # Figure 1: l much larger than d


def test_a_rehearsal_of_every_grid_yields_verdicts(dirs):
    found = {grid: load_sweep(rehearse(dirs, grid)) for grid in GRIDS}
    judged = {c.id: judge(c, found) for c in CLAIMS}
    cells = {c.id: len(c.model) * (1 + len(c.against) * max(1, len(c.against_variant))) for c in CLAIMS}
    short = {c: (j.status, j.runs) for c, j in judged.items() if j.status == "not run" or len(j.runs) < 2 * cells[c]}
    assert short == {}
    kept = ("not run", "without a figure", "the same with every seed", "different data", "hold alike", "one seed")
    assert [line for j in judged.values() for line in j.evidence if any(k in line for k in kept)] == []
    # each compares what its sentence says: cells that are not there leave it without a verdict
    once = next(c for c in CLAIMS if c.id == "lambda-once-an-epoch-is-enough")
    line = judged[once.id].evidence[0]
    assert "ResNet-18: AdaRem (λ 0.999 once an epoch) against AdaRem (λ 0.999 at every step)" in line
    assert judge(replace(once, against_variant=("decay_every=never",)), found).status == "not run"


def test_the_rehearsed_column_does_not_depend_on_which_grid_is_reported(dirs):
    for grid in ("table2", "table3", "lambda"):  # of digits, text, digits
        rehearse(dirs, grid)
    found = {}
    for grid in ("table3", "lambda"):
        make_report(grid=grid, runs_dir=dirs[0], results_dir=dirs[1])
        found[grid] = (dirs[1] / "claims.csv").read_text(), (dirs[1] / "claims.md").read_text()
    assert found["table3"] == found["lambda"]
    rows = {r["id"]: r["in_rehearsal"] for r in csv.DictReader(found["lambda"][0].splitlines())}
    for claim in CLAIMS:
        here = {claim.grid, claim.against_grid or claim.grid} <= {"table2", "table3", "lambda"}
        assert (rows[claim.id] != "—") == here, claim.id
    assert "no evidence: lambda-digits, table2-digits, table3-" in found["lambda"][1]


def test_the_table_and_the_claims_of_the_lambda_grid(dirs):
    rehearse(dirs, "lambda")
    text = make_report(grid="lambda", runs_dir=dirs[0], results_dir=dirs[1]).text
    assert "REHEARSAL of " in text
    md = (dirs[1] / "lambda-digits/table.md").read_text()
    for label in ("λ 0.999 once an epoch", "λ 0.999 at every step", "λ 1, never decaying"):
        assert f"ResNet-18 Top-1 ({label})" in md
    assert (
        md.index("once an epoch)") < md.index("at every step)") < md.index("never decaying)") < md.index("(λ 0.99 once")
    )
    assert "Settings off the grid's own" not in md
    assert "ResNet-18 Top-1: AdaRem (λ 1, never decaying) − AdaRem (λ 0.999 once an epoch) = +8.20" in md
    assert all((dirs[1] / "lambda-digits" / name).exists() for name in ("figures/lambda-curves.png", "time.md"))
    drawn = curves(load_table(dirs[0] / "lambda-digits", dirs[1]), [TRAIN_LOSS, TEST_ERROR], "").axes[0].get_lines()
    assert [line.get_label() for line in drawn][:2] == ["λ 0.999 once an epoch (n=2)", "λ 0.999 at every step (n=2)"]
    assert len({line.get_color() for line in drawn}) == 5
    with open(dirs[1] / "claims.csv", newline="") as f:
        rows = {r["id"]: r for r in csv.DictReader(f)}
    # 60.00 and 62.01 against 64.04 and 66.09, no evidence: −4.04 and −4.08, so more than 0.5 points worse
    row = rows["lambda-once-an-epoch-is-enough"]
    assert (row["status"], row["evidence"]) == ("not run", "")
    assert row["in_rehearsal"] == "(REHEARSAL: contradicted)"
    assert rows["adarem-matches-sgdm"]["in_rehearsal"] == "—"
    assert "lambda-digits" in (dirs[1] / "claims.md").read_text()


def test_the_report_names_every_claim_that_was_changed_since_the_plan(dirs):
    folder = rehearse(dirs, "table2")
    make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1])
    hash_of_plan = json.loads((folder / "claims.json").read_text())["hash"]
    md = (dirs[1] / "claims.md").read_text()
    assert f"- table2-digits: planned with claims {hash_of_plan}, which are those of now" in md
    (dirs[1] / "paper").mkdir()
    for name in ("claims.yaml", "settings.yaml", "table2.csv"):
        shutil.copy(paper_file(name, dirs[1] / "none"), dirs[1] / "paper" / name)
    own = dirs[1] / "paper" / "claims.yaml"
    own.write_text(own.read_text().replace("  margin: 0.5\n", "  margin: 5.0\n", 1))
    make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1])
    md = (dirs[1] / "claims.md").read_text()
    assert f"- table2-digits: planned with claims {hash_of_plan}; changed since: adarem-matches-sgdm\n" in md
    assert "is as good as SGDM's (at most 5 points worse)." in md
    assert "table2-digits: planned with claims" in (dirs[1] / "index.html").read_text()
    (folder / "claims.json").unlink()
    make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1])
    assert "- table2-digits: no hash of the claims was kept" in (dirs[1] / "claims.md").read_text()


def test_where_the_paper_contradicts_itself_is_printed(dirs):
    rehearse(dirs, "table2")
    make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1])
    md, page = ((dirs[1] / name).read_text() for name in ("claims.md", "index.html"))
    assert "## Where the paper contradicts itself" in md and "Where the paper contradicts itself" in page
    entries = read_contradictions(dirs[1])
    assert len(entries) >= 4 and all(f"- {c.text}" in md for c in entries)
    # The numbers that it gives are those of 100 epochs of 1,281,167 images in batches of 1024.
    (of_lambda,) = [c.what for c in entries if "λ" in c.what]
    steps = 100 * (1_281_167 // 1024)
    assert f"{0.999**100:.3f}" in of_lambda and f"{0.999**steps:.0e}" in of_lambda
