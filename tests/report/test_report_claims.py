from dataclasses import replace

import pytest
import yaml
from report_factory import HASHES, diverge, finish, make_config, write_grid

from adarem.errors import UserError
from adarem.report import claims
from adarem.report.cells import paper_file, read_paper
from adarem.report.collect import read_runs

BASE = claims.Claim("id", "a sentence", "Table 2", "table2", ("resnet18",), "adarem", ("sgdm",), "top1", "higher")


def campaign(dirs, adarem, sgdm, **more):
    """Table 2 with these top-1 values, one a seed."""
    folder = write_grid(dirs[0], seeds=list(range(max(len(adarem), len(sgdm)))))
    for optimizer, values in (("adarem", adarem), ("sgdm", sgdm)):
        for seed, value in enumerate(values):
            finish(folder, make_config("resnet18", optimizer, seed), value, loss=5.0 - value / 20, **more)
    return {"table2": read_runs(folder)}


GAIN = ([71.0, 71.1, 71.2], [70.0, 70.1, 70.2])  # d = 1.0, 95 % ± 2.776 · 0.0816 = 0.227


@pytest.mark.parametrize(
    ("change", "values", "expected"),
    [
        ({}, GAIN, "supported"),
        ({}, GAIN[::-1], "contradicted"),
        ({}, ([71.0, 70.0, 70.6], GAIN[1]), "undecided"),
        ({"threshold": 0.9}, GAIN, "undecided"),
        ({"threshold": 1.3}, GAIN, "contradicted"),
        ({"threshold": -0.5}, ([70.0, 70.1, 70.2], [70.1, 70.2, 70.3]), "supported"),
        ({"relation": "equal", "margin": 0.5}, ([70.0, 70.1, 70.2], [70.1, 70.2, 70.3]), "supported"),
        ({"relation": "equal", "margin": 0.2}, ([70.0, 70.1, 70.2], [70.1, 70.2, 70.3]), "undecided"),
        ({"relation": "equal", "margin": 0.5}, GAIN, "contradicted"),
        ({"relation": "about", "value": 1.0, "margin": 0.3}, GAIN, "supported"),
        ({"relation": "about", "value": 1.0, "margin": 0.2}, GAIN, "undecided"),
        ({"relation": "about", "value": 2.4, "margin": 0.5}, GAIN, "contradicted"),
        ({"relation": "lower", "metric": "train_loss"}, GAIN, "supported"),  # loss falls where accuracy rises
        ({"relation": "lower", "metric": "mean_train_loss"}, GAIN, "supported"),
        ({"relation": "lower", "metric": "test_error@0.1"}, GAIN, "supported"),
        ({"relation": "higher", "metric": "train_loss@0.1"}, GAIN, "contradicted"),
        ({"metric": "q_mean"}, GAIN, "not run"),
        ({}, ([71.0], [70.0]), "undecided"),
        ({}, ([], [70.0]), "not run"),
    ],
)
def test_a_claim_is_judged_by_its_interval(dirs, change, values, expected):
    assert claims.judge(replace(BASE, **change), campaign(dirs, *values)).status == expected


def test_the_evidence_holds_the_numbers_and_the_runs(dirs):
    j = claims.judge(BASE, campaign(dirs, *GAIN))
    assert "71.100 ± 0.100 (n=3) − 70.100 ± 0.100 (n=3) = +1.000, interval +0.773 to +1.227" in j.evidence[0]
    assert j.runs == [f"table2/resnet18-{o}-s{i}" for o in ("adarem", "sgdm") for i in range(3)]


def test_more_comparisons_widen_the_interval(dirs):
    """95 % for one comparison, 97.5 % for each of two: t(4) = 3.495 instead of 2.776."""
    found = campaign(dirs, *GAIN)
    j = claims.judge(replace(BASE, against=("sgdm", "adam")), found)
    half = 3.4954 * (2 * 0.1**2 / 3) ** 0.5
    assert f"interval {1 - half:+.3f} to {1 + half:+.3f}" in j.evidence[0]
    assert j.status == "undecided"  # Adam was not run
    assert j.evidence[1].startswith("not run:")


def test_one_seed_reports_the_paired_test_and_decides_nothing(dirs):
    import numpy as np

    folder = write_grid(dirs[0])
    right = np.arange(1000) < 705
    finish(folder, make_config("resnet18", "sgdm"), 70.5, correct=right)
    finish(folder, make_config("resnet18", "adarem"), 72.5, correct=np.arange(1000) < 725)
    j = claims.judge(BASE, {"table2": read_runs(folder)})
    assert j.status == "undecided"
    assert "one seed tells nothing of another (the two checkpoints: +2.00" in j.evidence[0]


def test_different_data_is_never_compared(dirs):
    found = campaign(dirs, *GAIN)
    folder = found["table2"].folder
    finish(folder, make_config("resnet18", "sgdm", 3), 70.1, hashes=HASHES | {"val": "e" * 64})
    j = claims.judge(BASE, {"table2": read_runs(folder)})
    assert (j.status, "made on different data" in j.evidence[0]) == ("undecided", True)


def test_settings_that_the_claim_holds_alike(dirs):
    folder = write_grid(dirs[0], seeds=[0, 1])
    for seed in (0, 1):
        finish(folder, make_config("resnet18", "sgdm", seed), 70.0 + seed / 10)
        finish(folder, make_config("resnet18", "adarem", seed, changed={"optimizer": {"lr": 0.8}}), 71.0 + seed / 10)
    same = replace(BASE, same=("optimizer.lr", "optimizer.weight_decay"))
    j = claims.judge(same, {"table2": read_runs(folder)})
    assert j.status == "undecided" and "differ in optimizer.lr," in j.evidence[0]


def test_a_diverged_seed_is_named(dirs):
    found = campaign(dirs, GAIN[0], GAIN[1][:2])
    diverge(found["table2"].folder, make_config("resnet18", "sgdm", 2))
    j = claims.judge(BASE, {"table2": read_runs(found["table2"].folder)})
    assert "diverged: resnet18-sgdm-s2" in j.evidence[0]


@pytest.mark.parametrize(("rising", "expected"), [(True, "supported"), (False, "contradicted")])
def test_gains_grow_as_models_shrink(dirs, rising, expected):
    ledger = {c.id: c for c in claims.read_claims(dirs[1])}
    claim = ledger["gains-grow-as-networks-shrink"]
    folder = write_grid(dirs[0], "table1")
    for i, model in enumerate(claim.model):  # from the largest to the smallest
        for optimizer, gain in (("sgdm", 0.0), ("adarem_s", 0.1 * (i if rising else 6 - i))):
            run = finish(folder, make_config(model, optimizer, grid="table1"), 70.0 + gain, epochs=False)
            run.write_result(run.result() | {"parameters": 10_000_000 - i})
    j = claims.judge(claim, {"table1": read_runs(folder)})
    assert j.status == expected
    assert f"τ(parameters, gain) = {'-1.00' if rising else '+1.00'}, two-sided p = 0.0028" in j.evidence[-1]  # 2 / 6!


def test_the_ledger_fits_the_papers_own_numbers(dirs):
    """Every comparison of accuracies or perplexities in the ledger is one that the paper's tables bear out."""
    ledger = claims.read_claims(dirs[1])
    assert len({c.id for c in ledger}) == len(ledger) >= 20
    paper = {}
    for n in (1, 2, 3):
        paper |= {k: float(v) for k, v in read_paper(f"table{n}.csv", dirs[1]).values.items()}
    checked = 0
    for c in ledger:
        for model in c.model:
            for other in c.against:
                a, b = paper.get((model, c.optimizer, c.metric)), paper.get((model, other, c.metric))
                if a is None or b is None or c.against_variant or c.relation == "grows_as_models_shrink":
                    continue
                d, checked = a - b, checked + 1
                center = c.value if c.relation == "about" else 0.0
                holds = {
                    "higher": d > c.threshold, "lower": -d > c.threshold,
                    "equal": abs(d) <= c.margin, "about": abs(d - center) <= c.margin,
                }[c.relation]  # fmt: skip
                assert holds, (c.id, model, other, d)
    assert checked >= 25


def test_a_misspelt_key_is_named(dirs):
    raw = yaml.safe_load(paper_file("claims.yaml", dirs[1]).read_text())
    raw[0]["optimiser"] = raw[0].pop("optimizer")
    (dirs[1] / "paper").mkdir(parents=True)
    (dirs[1] / "paper" / "claims.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError, match="optimiser: no such key; did you mean 'optimizer'"):
        claims.read_claims(dirs[1])
