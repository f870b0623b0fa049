from dataclasses import replace

import numpy as np
import pytest
import yaml
from scipy import stats

from adarem.report.claims import judge as claims
from adarem.report.claims.entries import Claim, measure, read_claims
from adarem.report.load import load_sweep, read_run
from adarem.report.tables.table import build, read_paper
from adarem.resources import paper_file
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.sweep import PaperPart, SweepSpec
from tests.support.sweeps import HASHES, diverge, finish, make_config, start, write_epochs, write_grid

BASE = Claim("id", "a sentence", "Table 2", "table2", ("resnet18",), "adarem", "top1", "higher", against=("sgdm",))


def sweep(dirs, adarem, sgdm, adam=(), seeds=None):
    """Table 2 with these top-1 values, one a seed."""
    folder = write_grid(dirs[0], seeds=seeds or list(range(max(len(adarem), len(sgdm)))))
    for optimizer, values in (("adarem", adarem), ("sgdm", sgdm), ("adam", adam)):
        for seed, value in enumerate(values):
            finish(folder, make_config("resnet18", optimizer, seed), value, loss=5.0 - value / 20)
    return {"table2": load_sweep(folder)}


def again(found):
    return {name: load_sweep(c.folder) for name, c in found.items()}


# d = 0.9, 1.1 and 1.0 with each seed; 90 % ± 2.920 · 0.0577 = 0.169, 95 % ± 4.303 · 0.0577 = 0.248
GAIN = ([71.0, 71.1, 71.2], [70.1, 70.0, 70.2])
LOSS = ([70.0, 70.1, 70.2], [70.2, 70.1, 70.3])  # d = −0.1


@pytest.mark.parametrize(
    ("change", "values", "expected"),
    [
        ({}, GAIN, "supported"),
        ({}, GAIN[::-1], "contradicted"),
        ({}, ([71.0, 70.0, 70.6], GAIN[1]), "undecided"),
        ({"threshold": 0.83}, GAIN, "supported"),
        ({"threshold": 0.84}, GAIN, "undecided"),
        ({"threshold": 1.24}, GAIN, "undecided"),
        ({"threshold": 1.25}, GAIN, "contradicted"),
        ({"threshold": -0.5}, LOSS, "supported"),
        ({"relation": "equal", "margin": 0.5}, LOSS, "supported"),
        ({"relation": "equal", "margin": 0.27}, LOSS, "supported"),
        ({"relation": "equal", "margin": 0.26}, LOSS, "undecided"),
        ({"relation": "equal", "margin": 0.5}, GAIN, "contradicted"),
        ({"relation": "about", "value": 1.0, "margin": 0.17}, GAIN, "supported"),
        ({"relation": "about", "value": 0.3, "margin": 0.4}, GAIN, "exceeded"),  # 1.0 where 0.3 is claimed
        ({"relation": "about", "value": 0.3, "margin": 0.5}, GAIN, "undecided"),  # 0.8 is in 0.752 to 1.248
        ({"relation": "about", "value": -1.0, "margin": 0.4}, GAIN, "contradicted"),
        ({"relation": "about", "value": -0.4, "margin": 0.3}, GAIN[::-1], "exceeded"),
        ({"relation": "as_good", "margin": 0.5}, GAIN, "supported"),  # being better is no contradiction
        ({"relation": "as_good", "margin": 0.27}, LOSS, "supported"),
        ({"relation": "as_good", "margin": 0.26}, LOSS, "undecided"),
        ({"relation": "as_good", "margin": 0.5}, GAIN[::-1], "contradicted"),
        ({"relation": "as_good", "margin": 0.01, "metric": "train_loss"}, GAIN, "supported"),  # lower is better there
        ({"relation": "as_good", "margin": 0.01, "metric": "train_loss"}, GAIN[::-1], "contradicted"),
        ({"relation": "about", "value": 1.0, "margin": 0.16}, GAIN, "undecided"),
        ({"relation": "about", "value": 2.4, "margin": 0.5}, GAIN, "contradicted"),
        ({"relation": "lower", "metric": "train_loss"}, GAIN, "supported"),  # loss falls where accuracy rises
        ({"relation": "lower", "metric": "mean_train_loss"}, GAIN, "supported"),
        ({"relation": "lower", "metric": "test_error@0.1"}, GAIN, "supported"),
        ({"relation": "higher", "metric": "test_error_fall@0.1-0.5"}, GAIN, "supported"),
        ({"relation": "higher", "metric": "train_loss@0.1"}, GAIN, "contradicted"),
        ({"metric": "q_mean"}, GAIN, "not run"),
        ({"metric": "mean_q_mean"}, GAIN, "not run"),
        # One sample: 71.1, 90 % ± 2.920 · 0.0577 = 0.169, 95 % ± 0.248
        ({"relation": "above", "against": (), "value": 70.9}, GAIN, "supported"),
        ({"relation": "above", "against": (), "value": 71.0}, GAIN, "undecided"),
        ({"relation": "above", "against": (), "value": 71.4}, GAIN, "contradicted"),
        ({}, ([71.0], [70.0]), "undecided"),
        ({}, ([], [70.0]), "not run"),
    ],
)
def test_a_claim_is_judged_by_its_intervals(dirs, change, values, expected):
    assert claims.judge(replace(BASE, **change), sweep(dirs, *values)).status == expected


def test_the_evidence_holds_the_numbers_and_the_runs(dirs):
    j = claims.judge(BASE, sweep(dirs, *GAIN))
    assert j.evidence == [
        "supported: ResNet-18: AdaRem against SGDM, top1: 71.100 ± 0.100 (n=3) − 70.100 ± 0.100 (n=3) = +1.000, "
        "90 % interval +0.831 to +1.169, one-sided p = 0.0017, 95 % interval +0.752 to +1.248"
    ]
    assert j.runs == [f"table2/resnet18-{o}-s{i}" for o in ("adarem", "sgdm") for i in range(3)]


def test_what_else_the_runs_differ_in_is_said_as_under_a_table(dirs):
    found = sweep(dirs, *GAIN)
    run = RunDir(found["table2"].folder / "resnet18-sgdm-s1")
    run.write_result(run.result() | {"commit": "badc0de999", "dirty": True, "world_size": 8})
    j = claims.judge(BASE, again(found))
    table = build(again(found)["table2"], read_paper(found["table2"].spec, dirs[1]))
    (test,) = [c for c in table.comparisons if c.metric == "top1"]
    assert j.status == "supported" and len(test.differing) == 3
    assert j.evidence[0].endswith("; ".join(["+1.248", *test.differing]))
    assert "made by different commits: c0ffee012 (6 runs), badc0de99 (resnet18-sgdm-s1)" in test.differing
    assert "trained at different world sizes: 16 (6 runs), 8 (resnet18-sgdm-s1)" in test.differing


def _most(dirs, wins, at_least):
    """AdaRem against as many others as there are ``wins``, each a clear difference either way, or none."""
    folder = write_grid(dirs[0], seeds=[0, 1, 2])
    others = ("sgdm", "adam", "adamw", "adabound", "rmsprop")[: len(wins)]
    for seed in range(3):
        finish(folder, make_config("resnet18", "adarem", seed), 70.0, epochs=False)
        for other, win in zip(others, wins, strict=True):
            value = 70.0 - win + 0.001 * seed if win else 70.0 + (seed - 1)
            finish(folder, make_config("resnet18", other, seed), value, epochs=False)
    claim = replace(BASE, against=others, at_least=at_least)
    return claims.judge(claim, {"table2": load_sweep(folder)}).status


@pytest.mark.parametrize(
    ("wins", "at_least", "expected"),
    [
        ([1, 1, 1, 1, -1], 0, "contradicted"),
        ([1, 1, 1, 1, -1], 4, "supported"),
        ([1, 1, 1, 1, 0], 4, "supported"),
        ([1, 1, 1, -1, -1], 4, "contradicted"),
        ([1, 1, 1, 0, -1], 4, "undecided"),
        ([1, 1, 1, 0, 0], 3, "supported"),
        ([1, 0, 0, -1, -1], 3, "undecided"),
        ([1, 0, -1, -1, -1], 3, "contradicted"),
    ],
)
def test_a_claim_that_has_to_hold_in_most_comparisons(dirs, wins, at_least, expected):
    assert _most(dirs, wins, at_least) == expected


def test_two_false_of_six_pass_as_most_at_most_5_percent_of_the_time():
    """Four of six, three of them true: the rule at 5 % / 3 for each, by scipy's t alone."""
    rng = np.random.default_rng(3)
    p = stats.t.sf(rng.standard_t(2, (200_000, 3)), 2)  # of the false ones
    assert np.mean((p < 0.05 / 3).any(axis=1)) < 0.0505


def test_every_sentence_carries_its_numbers(dirs):
    entries = {c.id: c.sentence for c in read_claims(dirs[1])}
    assert entries["adarem-matches-sgdm"].endswith("is as good as SGDM's (at most 0.5 points worse).")
    assert entries["adarem-s-gains-one-point"].endswith("(within 0.5 points of 1).")
    assert entries["sgdm-oscillates-severely"].endswith("a median above our threshold (above 5).")
    assert entries["borrowed-settings-suffice-adarem-s"].endswith(
        "(at most 0.5 points worse; in 4 of 6 comparisons or more)."
    )
    assert all("(" in sentence for sentence in entries.values())


def test_a_rate_does_not_see_a_head_start(dirs):
    """Both lose a third of their error between the two shares; the one ahead falls by fewer points."""
    folder = write_grid(dirs[0])
    for optimizer, error in (("adam", 40.0), ("sgdm", 80.0)):
        last = 100.0 - error * (2 / 3) ** 2.25
        run = finish(folder, make_config("resnet18", optimizer), last, epochs=False)
        for epoch in range(1, 101):
            left = error * (2 / 3) ** ((epoch - 10) / 40)
            run.append_metrics({"epoch": epoch, "split": "val", "step": epoch, "top1": 100.0 - left, "loss": 1.0})
    adam, sgdm = (read_run(folder / f"resnet18-{o}-s0") for o in ("adam", "sgdm"))
    assert measure(sgdm, "test_error_fall@0.1-0.5") == pytest.approx(2 * measure(adam, "test_error_fall@0.1-0.5"))
    assert measure(adam, "test_error_rate@0.1-0.5") == pytest.approx(100 * np.log(1.5))
    assert measure(sgdm, "test_error_rate@0.1-0.5") == pytest.approx(100 * np.log(1.5))


def test_each_of_several_comparisons_passes_uncorrected(dirs):
    """Both are false at most 5 % of the time where the claim is false, so what supports one supports two."""
    found = sweep(dirs, *GAIN, adam=GAIN[1])
    two = replace(BASE, against=("sgdm", "adam"), threshold=0.83)
    assert claims.judge(two, found).status == "supported"
    assert claims.judge(replace(two, threshold=0.84), found).status == "undecided"


def test_one_of_several_comparisons_contradicts_only_corrected(dirs):
    """95 % for one comparison, 97.5 % for each of two: t(2) = 6.205 instead of 4.303, 0.358 instead of 0.248."""
    found = sweep(dirs, *GAIN, adam=[60.1, 60.0, 60.2])
    one, two = replace(BASE, threshold=1.25), replace(BASE, threshold=1.25, against=("sgdm", "adam"))
    assert claims.judge(one, found).status == "contradicted"
    j = claims.judge(two, found)
    assert (j.status, [e.split(":")[0] for e in j.evidence]) == ("undecided", ["undecided", "supported"])
    assert "97.5 % interval +0.642 to +1.358" in j.evidence[0]
    assert claims.judge(replace(two, threshold=1.36), found).status == "contradicted"


def test_a_comparison_that_was_not_run_leaves_the_claim_open(dirs):
    j = claims.judge(replace(BASE, against=("sgdm", "adam")), sweep(dirs, *GAIN))
    assert j.status == "undecided"
    assert j.evidence[1] == "not run: ResNet-18: AdaRem against Adam, top1: n = 3 and 0; without a figure: Adam: no run"


def test_one_seed_reports_the_paired_test_and_decides_nothing(dirs):
    folder = write_grid(dirs[0])
    right = np.arange(1000) < 705
    finish(folder, make_config("resnet18", "sgdm"), 70.5, correct=right)
    finish(folder, make_config("resnet18", "adarem"), 72.5, correct=np.arange(1000) < 725)
    j = claims.judge(BASE, {"table2": load_sweep(folder)})
    assert j.status == "undecided"
    assert "one seed says nothing of another (the two checkpoints: +2.00" in j.evidence[0]
    run = next(r.dir for r in load_sweep(folder).runs if "sgdm" in r.name)
    run.write_correct({"top1": ~right, "top5": right})  # another evaluation's
    j = claims.judge(BASE, {"table2": load_sweep(folder)})
    assert j.evidence[0].endswith("= +2.000; one seed says nothing of another")


def test_seeds_that_do_not_differ_decide_nothing(dirs):
    """Two seeds that are right on equally many images are no proof of a deviation of 0."""
    j = claims.judge(BASE, sweep(dirs, [70.52, 70.52], [70.50, 70.50]))
    assert j.status == "undecided"
    assert j.evidence[0].endswith("= +0.020; the same with every seed, so there is no test")
    equal = replace(BASE, relation="equal", margin=0.5)
    assert claims.judge(equal, sweep(dirs, [100 * 310 / 360] * 3, [100 * 310 / 360] * 3)).status == "undecided"


def _diverged(run, config):
    diverge(run.path.parent, config)


def _failed(run, config):
    run.freeze(config)
    run.end_attempt(start(run), "failed", "CUDA error")


def _interrupted(run, config):
    run.freeze(config)
    number = start(run)
    write_epochs(run, 3, 50.0)
    run.end_attempt(number, "interrupted")


def _planned(run, config):
    run.freeze(config)


def _damaged(run, config):
    finish(run.path.parent, config, 70.1)
    run.result_file.write_text(run.result_file.read_text().replace("70.1", "79.1", 1))


def _unreadable(run, config):
    finish(run.path.parent, config, 70.1)
    run.config_file.write_text("{")


def _lost(run, config):
    pass


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_diverged, "resnet18-{}-s2 diverged"),
        (_failed, "resnet18-{}-s2 failed"),
        (_interrupted, "resnet18-{}-s2 interrupted"),
        (_planned, "resnet18-{}-s2 planned"),
        (_damaged, "resnet18-{}-s2 failed"),
        (_unreadable, "{}, seed 2: no readable run"),
        (_lost, "{}, seed 2: no readable run"),
    ],
)
@pytest.mark.parametrize(("side", "label"), [("adarem", "AdaRem"), ("sgdm", "SGDM")])
def test_survivors_decide_nothing(dirs, spoil, named, side, label):
    """Two of three seeds finished: whatever they say, the third has a say too."""
    values = {"adarem": GAIN[0], "sgdm": GAIN[1]} | {side: {"adarem": GAIN[0], "sgdm": GAIN[1]}[side][:2]}
    found = sweep(dirs, values["adarem"], values["sgdm"])
    config = make_config("resnet18", side, 2)
    spoil(RunDir(found["table2"].folder / config.run_name), config)
    for claim in (BASE, replace(BASE, relation="equal"), replace(BASE, relation="lower")):
        j = claims.judge(claim, again(found))
        assert j.status == "undecided"
        assert f"without a figure: {named.format(side if 'resnet' in named else label)}" in j.evidence[0]


def test_a_side_that_only_diverged_was_run(dirs):
    found = sweep(dirs, [], GAIN[1])
    for seed in range(3):
        diverge(found["table2"].folder, make_config("resnet18", "adarem", seed))
    j = claims.judge(BASE, again(found))
    assert j.status == "undecided"
    assert "n = 0 and 3; without a figure: resnet18-adarem-s0 diverged, resnet18-adarem-s1 diverged" in j.evidence[0]


def test_a_complete_comparison_contradicts_whatever_another_lacks(dirs):
    found = sweep(dirs, *GAIN[::-1], adam=[60.0, 60.1])
    diverge(found["table2"].folder, make_config("resnet18", "adam", 2))
    j = claims.judge(replace(BASE, against=("sgdm", "adam")), again(found))
    assert (j.status, [e.split(":")[0] for e in j.evidence]) == ("contradicted", ["contradicted", "undecided"])


def fingerprint_with(run, val):
    prints = run.result()["fingerprint"]
    return prints | {"val": prints["val"] | {"content_hash": val}}


def test_different_data_is_never_compared(dirs):
    found = sweep(dirs, *GAIN)
    folder = found["table2"].folder
    run = RunDir(folder / "resnet18-sgdm-s2")
    run.write_result(run.result() | {"fingerprint": fingerprint_with(run, "e" * 64)})
    j = claims.judge(BASE, {"table2": load_sweep(folder)})
    assert (j.status, "made on different data" in j.evidence[0]) == ("undecided", True)


def test_settings_that_the_claim_holds_alike(dirs):
    folder = write_grid(dirs[0], seeds=[0, 1])
    for seed in (0, 1):
        finish(folder, make_config("resnet18", "sgdm", seed), 70.0 + seed / 10)
        finish(folder, make_config("resnet18", "adarem", seed, changed={"optimizer": {"lr": 0.8}}), 71.0 + seed / 10)
    same = replace(BASE, same=("optimizer.lr", "optimizer.weight_decay"))
    j = claims.judge(same, {"table2": load_sweep(folder)})
    assert j.status == "undecided" and "differ in optimizer.lr," in j.evidence[0]


def _oscillating(folder, optimizer, seed, q, windows=100):
    """q: what each window's Q is, by its epoch."""
    run = finish(folder, make_config("resnet18", optimizer, seed, grid="figure2"), 70.0)
    for epoch in range(1, windows + 1):
        run.append_oscillation(
            {"epoch": epoch, "step": epoch, "q_mean": q(epoch), "q_median_with_gradient": q(epoch) / 2}
        )
    return run


def test_q_is_judged_over_training_and_not_by_its_last_window(dirs):
    """AdaRem's Q is below SGDM's in every window but the last."""
    folder = write_grid(dirs[0], "figure2", seeds=[0, 1])
    for seed in (0, 1):
        _oscillating(folder, "adarem", seed, lambda epoch, s=seed: 10.0 + s + 90.0 * (epoch == 100))
        _oscillating(folder, "sgdm", seed, lambda epoch, s=seed: 20.0 + 1.1 * s - 15.0 * (epoch == 100))
    found = {"figure2": load_sweep(folder)}
    assert measure(found["figure2"].runs[0], "mean_q_mean") == pytest.approx(10.9)
    assert measure(found["figure2"].runs[0], "mean_q_median_with_gradient") == pytest.approx(5.45)
    entries = {c.id: c for c in read_claims(dirs[1])}
    smallest = replace(entries["adarem-smallest-q"], against=("sgdm",))
    assert claims.judge(smallest, found).status == "supported"
    assert claims.judge(replace(smallest, metric="q_mean"), found).status == "contradicted"
    severe = entries["sgdm-oscillates-severely"]
    j = claims.judge(severe, found)
    assert j.status == "supported"
    assert "ResNet-18: SGDM, mean_q_median_with_gradient against 5: 10.200 ± 0.389 (n=2), 90 %" in j.evidence[0]


def test_a_mean_over_training_needs_all_of_it(dirs):
    folder = write_grid(dirs[0], "figure2")
    complete = _oscillating(folder, "adarem", 0, lambda epoch: 10.0)
    cut = _oscillating(folder, "sgdm", 0, lambda epoch: 10.0, windows=99)
    assert measure(read_run(complete.path), "mean_q_mean") == 10.0
    assert measure(read_run(cut.path), "mean_q_mean") is None
    lines = cut.metrics_file.read_text().splitlines(keepends=True)
    cut.metrics_file.write_text("".join(line for line in lines if '"epoch": 50,' not in line))
    assert measure(read_run(cut.path), "mean_train_loss") is None
    wide = finish(folder, make_config("resnet18", "sgd", changed={"train": {"oscillation_window": 30}}), 70.0)
    for epoch in (30, 60, 90, 100):
        wide.append_oscillation({"epoch": epoch, "step": epoch, "q_mean": 10.0})
    assert measure(read_run(wide.path), "mean_q_mean") == 10.0


SIZES = [25_557_032, 11_689_512, 3_504_872, 2_278_604, 1_968_680, 1_366_792]  # in the order of the claim's networks


SHARES = [1.0, -1.0, 1.0, 1.0, -1.0, 0.8]


def networks(dirs, gain, noise=0.1, seeds=3, lost=None, hashes=None, sizes=SIZES):
    """Table 1 with the gain of each network by its place among the six; ``hashes`` for one run of the third.

    With seed s the gain is off by noise · s · (SHARES − 0.5).
    """
    folder = write_grid(dirs[0], "table1", seeds=list(range(seeds)))
    of_trend = {c.id: c for c in read_claims(dirs[1])}["gains-grow-as-networks-shrink"]
    for i, model in enumerate(of_trend.model):
        for optimizer, by, share in (("sgdm", 0.0, 0.5), ("adarem_s", gain(i), SHARES[i])):
            for seed in range(seeds):
                config = make_config(model, optimizer, seed, grid="table1")
                if (model, optimizer, seed) == lost:
                    diverge(folder, config)
                    continue
                seen = hashes if hashes and (i, optimizer, seed) == (2, "sgdm", 0) else HASHES
                run = finish(folder, config, 70.0 + by + noise * share * seed, epochs=False, hashes=seen)
                run.write_result(run.result() | {"parameters": sizes[i]})
    return of_trend, {"table1": load_sweep(folder)}


@pytest.mark.parametrize(
    ("gain", "noise", "expected"),
    [
        (lambda i: 0.2 * i, 0.1, "supported"),
        (lambda i: 1.0 - 0.2 * i, 0.1, "contradicted"),
        (lambda i: 0.2 * i, 2.0, "undecided"),  # in the same order, and lost in the noise
        (lambda i: [0, 0.4, 0.2, 0.6, 0.5, 0.9][i], 0.1, "supported"),  # two swaps matter less than the slope
        (lambda i: 0.0, 0.1, "undecided"),
        (lambda i: 0.2 * i, 0.0, "undecided"),  # the seeds did not differ
        (lambda i: [0, 0, 0, 0, 0, 1.5][i], 0.1, "undecided"),  # one network alone gains
        (lambda i: [-2, -1.5, -0.2, -0.2, -0.2, -0.2][i], 0.01, "contradicted"),  # the small ones lose
        (lambda i: 0.2 * i - 3.0, 0.1, "contradicted"),  # all six lose
        (lambda i: [-0.5, 0.3, 0.29, 0.28, 0.27, 0.26][i], 0.01, "undecided"),  # without ResNet-50 the sign turns
        (lambda i: [0.9, 0.9, 0.1, 0.5, 0.9, 1.9][i], 0.01, "contradicted"),  # the ResNets gain as much or more
    ],
)
def test_gains_grow_as_networks_shrink(dirs, gain, noise, expected):
    claim, found = networks(dirs, gain, noise)
    assert claims.judge(claim, found).status == expected


def test_the_slope_of_the_gains_by_hand(dirs):
    claim, found = networks(dirs, lambda i: 0.2 * i)
    j = claims.judge(claim, found)
    x, y = np.log10(SIZES), 0.2 * np.arange(6)
    assert j.evidence[0] == ("ResNet-50, 25,557,032 parameters: 70.100 ± 0.100 (n=3) − 70.050 ± 0.050 (n=3) = +0.050")
    y = y + 0.1 * (np.array(SHARES) - 0.5)
    slope = f"slope of top1 for ten times the parameters {np.polyfit(x, y, 1)[0]:+.3f}, 90 % interval"
    assert slope in j.evidence[6] and len(j.evidence) == 13  # six networks; the slope, the mean, four gains; the sign
    assert j.evidence[-1] == "supported: the slope stays below 0 when any one network is left out"
    assert len(j.runs) == 36


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seeds": 1}, "one seed says nothing of another"),
        ({"lost": ("shufflenet_v2_0.5", "adarem_s", 1), "seeds": 3}, "shufflenet_v2_0.5-adarem_s-s1 diverged"),
        ({"hashes": HASHES | {"train": "e" * 64}}, "MobileNetV2-1.0, 3,504,872 parameters: made on different data"),
        ({"noise": 0.0}, "the same with every seed"),
        ({"sizes": [11_689_512] * 6}, "networks of one size have no order"),
    ],
)
def test_an_order_of_networks_needs_what_every_comparison_needs(dirs, change, reason):
    claim, found = networks(dirs, lambda i: 0.2 * i, **change)
    j = claims.judge(claim, found)
    assert j.status == "undecided"
    assert any(reason in line for line in j.evidence)


def test_an_order_of_networks_by_a_figure_alone(dirs):
    claim, found = networks(dirs, lambda i: 0.0)
    for run in found["table1"].runs:  # SGDM's training loss grows as they shrink
        run.dir.write_result(
            run.result | {"train_loss": 2.0 - run.result["parameters"] * (1 / 1e8 + run.config.seed / 1e11)}
        )
    underfit = {c.id: c for c in read_claims(dirs[1])}["small-networks-underfit"]
    j = claims.judge(underfit, again(found))
    assert (j.status, len(j.runs)) == ("supported", 18)
    assert "slope of train_loss for ten times the parameters -" in j.evidence[6]


def test_several_settings_of_the_other_side(dirs):
    folder = write_grid(dirs[0], "lambda", seeds=[0, 1])
    for lam, value in ((None, 70.0), (1.0, 70.2), (0.99, 69.0), (0.9, 68.0)):
        for seed in (0, 1):
            off_axes = {"optimizer.lam": lam} if lam else {}
            config = make_config("resnet18", "adarem", seed, grid="lambda", overrides=off_axes)
            finish(folder, config, value + seed * (lam or 0.5) / 100, epochs=False)
    claim = {c.id: c for c in read_claims(dirs[1])}["lambda-0.999-suffices"]
    j = claims.judge(claim, {"lambda": load_sweep(folder)})
    assert (j.status, len(j.evidence), len(j.runs)) == ("supported", 3, 8)


def test_the_claims_fit_the_papers_own_numbers(dirs):
    """Every comparison of accuracies or perplexities in claims.yaml is one that the paper's tables bear out."""
    entries = read_claims(dirs[1])
    assert len(entries) >= 30
    paper = {}
    for n in (1, 2, 3):
        of_table = SweepSpec(name=f"table{n}", axes={}, metrics=(), paper=PaperPart(f"Table {n}", f"table{n}.csv"))
        paper |= {k: float(v) for k, v in read_paper(of_table, dirs[1]).values.items()}
    checked = 0
    for c in entries:
        for model in c.model:
            for other in c.against:
                a, b = paper.get((model, c.optimizer, c.metric)), paper.get((model, other, c.metric))
                if a is None or b is None or c.against_variant or c.relation == "grows_as_models_shrink":
                    continue
                d, checked = a - b, checked + 1
                center = c.value if c.relation == "about" else 0.0
                holds = {
                    "higher": d > c.threshold, "lower": -d > c.threshold,
                    "equal": abs(d) <= c.margin, "as_good": d >= -c.margin, "about": abs(d - center) <= c.margin,
                }[c.relation]  # fmt: skip
                assert holds, (c.id, model, other, d)
    assert checked >= 25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimiser": "adarem"}, r"optimiser: no such key; did you mean 'optimizer'\?"),
        ({"metric": None}, r"metric: missing"),
        ({"metric": "train_los"}, r"metric=train_los: unknown; did you mean 'train_loss'\?"),
        ({"metric": "test_error"}, r"metric=test_error: unknown; did you mean 'test_error@0.1'\?"),
        ({"metric": "train_los@0.1"}, r"metric=train_los: unknown; did you mean 'train_loss'\?"),
        ({"metric": "train_loss@ten"}, r"metric=train_loss@ten: needs rising shares .*: train_loss@0.1"),
        ({"metric": "train_loss@0"}, r"metric=train_loss@0: needs rising shares"),
        ({"metric": "train_loss@1.5"}, r"metric=train_loss@1.5: needs rising shares"),
        ({"metric": "train_loss_fall@0.5-0.1"}, r"metric=.*needs rising shares .*: train_loss_fall@0.1-0.5"),
        ({"metric": "train_loss_fall@0.5"}, r"metric=.*needs rising shares .*: train_loss_fall@0.1-0.5"),
        ({"metric": 1}, r"metric=1: needs text"),
        ({"relation": "highr"}, r"relation=highr: did you mean 'higher'\?"),
        ({"model": "resnet18"}, r"model='resnet18': needs a list of str"),
        ({"model": ["resnet81"]}, r"model\[0\]=resnet81: unknown; did you mean 'resnet18'\?"),
        ({"model": []}, r"model: needs at least one network"),
        ({"optimizer": "adarm"}, r"optimizer=adarm: unknown; did you mean 'adarem'\?"),
        ({"against": ["sgdm", "adma"]}, r"against\[1\]=adma: unknown; did you mean 'adam'\?"),
        ({"against": None}, r"against: missing; lower needs at least one optimizer"),
        ({"same": ["optimizer.weightdecay"]}, r"same\[0\]=optimizer.weightdecay: unknown; .*'optimizer.weight_decay'"),
        ({"same": ["optimizer.momentum"]}, r"same\[0\]=optimizer.momentum: unknown"),  # AdaRem has none
        ({"against_variant": "lam=1.0"}, r"against_variant='lam=1.0': needs a list of str"),
        ({"against_variant": ["weight_deca=0.0"]}, r"against_variant\[0\]=weight_deca: unknown; .*'weight_decay'"),
        ({"threshold": "much"}, r"threshold='much': needs float, not str"),
        ({"margin": 0.5}, r"margin: relation lower reads no such number"),
        ({"relation": "about"}, r"value: missing; relation about compares with it"),
        ({"relation": "equal", "margin": 0}, r"margin=0: needs a number above 0"),
        ({"relation": "above", "value": 1}, r"against: above compares with the value alone"),
        ({"relation": "grows_as_models_shrink"}, r"model: an order needs two networks or more"),
    ],
)
def test_what_no_run_can_meet_is_refused_in_one_line(dirs, change, message):
    raw = yaml.safe_load(paper_file("claims.yaml", dirs[1]).read_text())
    raw[0] = {k: v for k, v in (raw[0] | change).items() if v is not None}
    _write_claims(dirs, yaml.safe_dump(raw))
    with pytest.raises(UserError, match=f"^[^\n]*paper/claims.yaml: adarem-lowest-train-loss: {message}") as e:
        read_claims(dirs[1])
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"claims.yaml: not valid YAML at line \d+; fix it"),
        ("a: 1", "claims.yaml: needs a list of claims, each a mapping with id, claim"),
        ("", "claims.yaml: needs a list of claims"),
        ("- 7", "claims.yaml: needs a list of claims"),
        ("- claim: x", "claims.yaml: claim 1: id: missing"),
    ],
)
def test_what_is_no_list_of_claims_is_refused(dirs, text, message):
    _write_claims(dirs, text)
    with pytest.raises(UserError, match=message):
        read_claims(dirs[1])


def test_an_id_stands_for_one_claim(dirs):
    raw = yaml.safe_load(paper_file("claims.yaml", dirs[1]).read_text())
    _write_claims(dirs, yaml.safe_dump([*raw, *(c for c in raw if c["id"] == "adarem-matches-sgdm")]))
    with pytest.raises(UserError, match="claims.yaml: adarem-matches-sgdm: two claims have this id"):
        read_claims(dirs[1])


def _write_claims(dirs, text):
    (dirs[1] / "paper").mkdir(parents=True)
    (dirs[1] / "paper" / "claims.yaml").write_text(text)
