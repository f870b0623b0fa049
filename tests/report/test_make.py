import csv
import re
import shutil
from collections import defaultdict

import numpy as np
import pytest

from adarem.report import load as collect
from adarem.report import make_report
from adarem.report.claims import ledger
from adarem.report.figures import oscillation
from adarem.report.figures.curves import curves
from adarem.report.figures.panels import OSCILLATION, TEST_ERROR, TRAIN_LOSS, against_time
from adarem.report.load import read_sweep
from adarem.report.tables.table import build, read_paper
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from tests.support.sweeps import diverge, fingerprint, finish, make_config, start, write_epochs, write_grid


def rehearse(dirs, grid="table2", optimizers=("sgdm", "adarem"), models=("resnet18",)):
    folder = write_grid(dirs[0], grid, "digits", "rehearsal")
    for model in models:
        for i, optimizer in enumerate(optimizers):
            finish(folder, make_config(model, optimizer, grid=grid, data="digits"), 95.0 + i, 99.9)
    return folder


def report(dirs, grid="table2", **more):
    return make_report(grid=grid, runs_dir=dirs[0], results_dir=dirs[1], **more)


def test_every_file_is_written_and_named(dirs):
    rehearse(dirs)
    text = report(dirs)
    for name in ("runs.csv", "tables/table2.md", "tables/table2.csv", "tables/table2.tex", "figures/figure4.png",
                 "figures/figure4.svg", "figures/table2-time.png", "figures/table2-time.svg"):  # fmt: skip
        assert (dirs[1] / name).stat().st_size > 500 and str(dirs[1] / name) in text
    assert "REHEARSAL of Table 2" in text and "95.00" in text


def test_a_report_of_the_same_runs_is_the_same_bytes(dirs):
    rehearse(dirs)
    report(dirs)
    first = {p: p.read_bytes() for p in dirs[1].rglob("*") if p.is_file()}
    report(dirs)
    assert {p: p.read_bytes() for p in dirs[1].rglob("*") if p.is_file()} == first


def test_a_rehearsal_never_overwrites_a_reproduction(dirs, table2_runs):
    rehearse(dirs)
    report(dirs)  # the reproduction goes first when both are there
    before = {p: p.read_bytes() for p in dirs[1].rglob("*") if p.is_file()}
    assert "71.20 ± 0.20" in (dirs[1] / "tables/table2.md").read_text()
    with pytest.raises(UserError, match=r"holds a reproduction, .*results_dir=") as e:
        report(dirs, data="digits")
    assert "\n" not in str(e.value)
    assert {p: p.read_bytes() for p in dirs[1].rglob("*") if p.is_file()} == before
    make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1].with_name("elsewhere"), data="digits")
    assert (dirs[1].with_name("elsewhere") / "tables/table2.md").exists()


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_runs_on_other_data_under_the_papers_name_are_a_rehearsal(dirs, table2_runs):
    """ImageNet by its config, 20 and 8 images by what it saw."""
    report(dirs)
    genuine = contents(dirs[1])
    assert not (dirs[1] / "tables/table2.md").read_text().startswith("# REHEARSAL")
    for seed in range(3):
        for optimizer in ("sgdm", "adarem"):
            run = RunDir(table2_runs / f"resnet18-{optimizer}-s{seed}")
            seen = fingerprint(run.config(), {"train": 20, "val": 8})
            run.write_result(run.result() | {"fingerprint": seen})
    with pytest.raises(UserError, match="which the rehearsal table2 must not overwrite .ImageNet with 20 of 1,281,167"):
        report(dirs)
    assert contents(dirs[1]) == genuine
    results = dirs[1].with_name("elsewhere")
    text = make_report(grid="table2", runs_dir=dirs[0], results_dir=results)
    assert text.startswith("REHEARSAL of Table 2") and "8 of 50,000 validation images" in " ".join(text.split())
    md = (results / "tables/table2.md").read_text()
    assert md.startswith("# REHEARSAL") and "| verdict |" not in md
    with open(results / "runs.csv", newline="") as f:
        assert all("ImageNet with 20" in row["rehearsal"] for row in csv.DictReader(f))
    with open(results / "claims.csv", newline="") as f:
        assert {row["status"] for row in csv.DictReader(f)} == {"not run"}
    assert "<title>REHEARSAL" in (results / "report.html").read_text()


def test_a_rehearsal_without_a_readable_run_overwrites_no_reproduction(dirs, table2_runs):
    report(dirs)
    before = contents(dirs[1])
    write_grid(dirs[0], data="digits", scale="rehearsal")
    with pytest.raises(UserError, match="must not overwrite .table2-digits holds no readable run"):
        report(dirs, data="digits")
    assert contents(dirs[1]) == before


def test_figures_whose_runs_are_gone_are_not_overwritten(dirs, table2_runs):
    report(dirs)
    before = contents(dirs[1])
    shutil.move(table2_runs / "resnet18-sgdm-s0", dirs[0].parent / "aside")
    (table2_runs / "resnet18-sgdm-s1" / "config.yaml").write_text("[")
    with pytest.raises(UserError) as e:
        report(dirs)
    assert str(e.value) == (
        f"{dirs[1] / 'tables/table2.csv'}: holds figures of runs that cannot be read in {table2_runs} "
        "(table2/resnet18-sgdm-s0, table2/resnet18-sgdm-s1); bring them back, give another place with results_dir=…, "
        "or remove that file to give its figures up"
    )
    assert contents(dirs[1]) == before
    (dirs[1] / "tables/table2.csv").unlink()
    assert "70.70" in report(dirs)


def ledger_rows(dirs):
    with open(dirs[1] / "claims.csv", newline="") as f:
        return {row["id"]: row for row in csv.DictReader(f)}


def test_verdicts_whose_runs_are_elsewhere_stay(dirs, table2_runs):
    report(dirs)
    first = ledger_rows(dirs)
    judged = {k for k, row in first.items() if row["status"] != "not run"}
    assert judged
    shutil.move(table2_runs, dirs[0].parent / "aside")
    folder = write_grid(dirs[0], "table1")
    for optimizer, top1 in (("sgdm", 70.0), ("adarem_s", 71.0)):
        finish(folder, make_config("resnet18", optimizer, grid="table1"), top1, epochs=False)
    lost = dict.fromkeys(("evidence", "in_rehearsal"), "") | {"id": "gone", "claim": "Once a claim.", "where": "p. 1"}
    with open(dirs[1] / "claims.csv", "a", newline="") as f:
        row = lost | {"status": "contradicted", "runs": "table9/x-s0"}
        csv.DictWriter(f, list(first[min(judged)]), restval="", lineterminator="\n").writerow(row)
    for _ in range(2):  # the second report finds the first one's ledger
        text = report(dirs, "table1")
        rows = ledger_rows(dirs)
        assert f"Claims whose runs are not under {dirs[0]} stay as an earlier report judged them: " in text
        assert set(re.search(r"judged them: (.*);", text)[1].split(", ")) == judged | {"gone"}
        for k in judged:
            same = ("status", "claim", "runs")
            assert [rows[k][of] for of in same] == [first[k][of] for of in same]
            assert rows[k]["evidence"] == f"{first[k]['evidence']} | {ledger.KEPT}"
        assert (rows["gone"]["status"], rows["gone"]["claim"]) == ("contradicted", "Once a claim.")
        assert rows.keys() - first.keys() == {"gone"}
    md, page = (dirs[1] / "claims.md").read_text(), (dirs[1] / "report.html").read_text()
    assert md.count(ledger.KEPT) == page.count(ledger.KEPT) == len(judged) + 1
    assert any(row["runs"].startswith("table1/") for row in rows.values())  # what is here is judged
    shutil.move(dirs[0].parent / "aside", table2_runs)
    assert "stay as an earlier report judged them: gone;" in report(dirs)
    rows = ledger_rows(dirs)
    assert all(rows[k]["evidence"] == first[k]["evidence"] for k in judged)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (b"\xff\xfe\x00", "not text; plan the grid again"),
        (b"name: {\n}}", "not valid YAML at line 2; plan the grid again"),
        (b"name: table1\nmetrics: [top1]\naxes: {}", "needs axes.model, axes.optimizer, metrics; plan it again"),
    ],
)
def test_another_campaigns_damaged_grid_costs_its_own_part_alone(dirs, table2_runs, damage, words):
    folder = write_grid(dirs[0], "table1")
    finish(folder, make_config("resnet18", "sgdm", grid="table1"), 70.0, epochs=False)
    report(dirs, "table1")
    (folder / "grid.yaml").write_bytes(damage)
    text = report(dirs)
    line = f"{folder / 'grid.yaml'}: {words} (table1 is left as earlier reports have it)"
    assert f"Problem: {line}\n" in text
    with open(dirs[1] / "runs.csv", newline="") as f:
        assert {row["campaign"]: row["top1"] for row in csv.DictReader(f)} == {"table1": "70", "table2": "70.7"}
    page = (dirs[1] / "report.html").read_text()
    assert f'<div class="bad">{line}</div>' in page and 'id="table2"' in page and 'id="table1"' not in page
    assert (dirs[1] / "claims.md").exists() and (dirs[1] / "tables/table1.csv").exists()
    with pytest.raises(UserError, match=re.escape(str(folder / "grid.yaml"))):
        report(dirs, "table1")


@pytest.mark.parametrize("name", ["tables/table2.csv", "claims.csv", "runs.csv"])
def test_a_damaged_file_of_an_earlier_report_is_one_line_and_nothing_is_written(dirs, table2_runs, name):
    report(dirs)
    (dirs[1] / name).write_bytes(b"\xff\xfe\x00")
    before = contents(dirs[1])
    with pytest.raises(UserError, match=f"{name}: .*restore it, or move it away"):
        report(dirs)
    assert contents(dirs[1]) == before


def test_a_damaged_table_of_another_campaign_is_named_on_the_page(dirs, table2_runs):
    report(dirs)
    (dirs[1] / "tables/table1.csv").write_bytes(b"\xff\xfe\x00")
    assert f"Problem: {dirs[1] / 'tables/table1.csv'}: not a CSV that the report wrote" in report(dirs)


def test_every_run_is_read_once(dirs, table2_runs, monkeypatch):
    rehearse(dirs)
    rehearse(dirs, "figure2", ("sgd", "adarem"))
    report(dirs, "figure2")
    seen = []
    of = collect.read_run
    monkeypatch.setattr(collect, "read_run", lambda path, sections: seen.append(path) or of(path))
    report(dirs)
    assert len(seen) == len(set(seen)) == 6 + 2 + 2


def test_a_reproduction_takes_the_place_of_a_rehearsal(dirs):
    rehearse(dirs)
    report(dirs)
    folder = write_grid(dirs[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.5)
    report(dirs)
    assert "REHEARSAL" not in (dirs[1] / "tables/table2.md").read_text()


def test_nothing_run_is_one_line_with_what_to_type(dirs):
    with pytest.raises(UserError, match="make reproduce-table2, or adarem launch grid=table2"):
        report(dirs)


def test_a_grid_only_planned_renders(dirs):
    folder = write_grid(dirs[0])
    config = make_config("resnet18", "sgdm")
    RunDir(folder / config.cell).freeze(config)
    text = report(dirs)
    assert "0 of 1" in text and "no run has started" in text


def table(folder, dirs):
    sweep = read_sweep(folder)
    return build(sweep, read_paper(sweep.grid["paper"], dirs[1]))


def lines_of(fig, panel):
    return {line.get_label(): line.get_xydata() for line in fig.axes[panel].get_lines()}


def test_figure4_is_the_metrics_two_panels_one_line_an_optimizer(dirs, table2_runs):
    fig = curves(table(table2_runs, dirs), [TRAIN_LOSS, TEST_ERROR], "Figure 4")
    assert len(fig.axes) == 2
    loss, error = lines_of(fig, 0), lines_of(fig, 1)
    assert set(loss) == {"SGDM (n=3)", "AdaRem (n=3)"}
    run = RunDir(table2_runs / "resnet18-adarem-s1")
    train = [(r["epoch"], r["loss"]) for r in run.metrics() if r["split"] == "train"]
    assert loss["AdaRem (n=3)"] == pytest.approx(np.array(train))  # the three seeds have the same loss
    assert error["SGDM (n=3)"][-1] == pytest.approx([100, 100 - 70.6])
    assert error["AdaRem (n=3)"][-1] == pytest.approx([100, 100 - 71.2])
    band = fig.axes[1].collections[1].get_paths()[0].vertices
    at_end = band[band[:, 0] == 100][:, 1]
    assert (at_end.min(), at_end.max()) == pytest.approx((28.8 - 0.2, 28.8 + 0.2))


def test_figure5_has_a_row_a_network_and_a_stamp(dirs):
    folder = rehearse(dirs, "table1", ("sgdm", "adarem_s"), ("resnet18", "mobilenet_v2_1.0"))
    fig = curves(table(folder, dirs), [TRAIN_LOSS, TEST_ERROR], "Figure 5")
    assert len(fig.axes) == 12
    assert all(any(t.get_text() == "REHEARSAL" for t in ax.texts) for ax in fig.axes)
    assert any("REHEARSAL, not a reproduction" in t.get_text() for t in fig.texts)


def test_unfinished_and_diverged_seeds_stay_out_of_the_mean(dirs):
    folder = write_grid(dirs[0], seeds=[0, 1, 2])
    finish(folder, make_config("resnet18", "sgdm", 0), 70.0)
    diverge(folder, make_config("resnet18", "sgdm", 1), epoch=5)
    config = make_config("resnet18", "adam", 0)
    run = RunDir(folder / config.cell)
    run.freeze(config)
    start(run, host="elsewhere")
    write_epochs(run, 12, 60.0)
    fig = curves(table(folder, dirs), [TRAIN_LOSS, TEST_ERROR], "")
    error = lines_of(fig, 1)
    assert error["SGDM"][-1] == pytest.approx([100, 30.0])
    assert len(error["Adam (ep 12/100)"]) == 12
    crosses = [line for line in fig.axes[1].get_lines() if line.get_marker() == "x"]
    assert [c.get_xdata().tolist() for c in crosses] == [[5]]


def test_time_axis_adds_training_evaluation_and_checkpoints(dirs, table2_runs):
    t = table(table2_runs, dirs)
    panels = against_time(TEST_ERROR, t.sweep.runs)
    run = t.sweep.runs[0]
    assert panels.wall.curve(run).x[-1] == pytest.approx(100 * (100.0 + 1.0 + 9.0) / 3600)
    assert panels.device.curve(run).x[-1] == pytest.approx(16 * 100 * 110.0 / 3600)
    assert "hours" in panels.wall.x_label and panels.device.x_label == "GPU hours"


def test_svg_needs_no_network_and_no_font(dirs):
    rehearse(dirs)
    report(dirs)
    svg = (dirs[1] / "figures/figure4.svg").read_text()
    assert "<text" not in svg and not re.search(r'(?:href|src)="http', svg)


def test_importing_the_package_is_cheap():
    import subprocess
    import sys

    code = (
        "import sys, adarem.report; print([m for m in ('pandas', 'matplotlib', 'numpy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_figure_1_shows_every_optimizer_under_one_seed(dirs):
    """Which parameters are watched depends on the seed, so another seed would be another parameter."""
    folder = write_grid(dirs[0], "figure2", "digits", "rehearsal", seeds=[0, 1])
    runs = {}
    for optimizer in ("sgd", "adarem"):
        for seed in (0, 1):
            config = make_config("resnet18", optimizer, seed, grid="figure2", data="digits")
            run = runs[optimizer, seed] = finish(folder, config, 95.0)
            ways = [{"parameter": f"w[{seed}]", "from_step": 0, "values": [0.0, 1.0, 3.0]}]
            if (optimizer, seed) != ("sgd", 0):  # which was not tracked
                run.append_oscillation({"epoch": 1, "step": 23, "q_mean": 50.0, "trajectories": ways})
    fig = oscillation.over_training(table(folder, dirs), "Figure 1")
    assert [ax.get_title().split("\n")[0] for ax in fig.axes] == ["SGD, from iteration 0", "AdaRem, from iteration 0"]
    assert any("Figure 1 (w[1])" in t for t in all_texts(fig))
    runs["adarem", 1].oscillation_file.unlink()  # no seed in common
    fig = oscillation.over_training(table(folder, dirs), "Figure 1")
    heads = [ax.get_title().split("\n")[0] for ax in fig.axes]
    assert heads == ["SGD, seed 1, w[1], from iteration 0", "AdaRem, seed 0, w[0], from iteration 0"]
    assert not any("(w[" in t for t in all_texts(fig))


def all_texts(fig):
    return [t.get_text() for t in fig.texts] + ([fig.get_suptitle()] if fig.get_suptitle() else [])


def test_figures_1_and_2_from_the_oscillation_records(dirs):
    folder = write_grid(dirs[0], "figure2", "digits", "rehearsal")
    for i, optimizer in enumerate(("sgd", "adarem")):
        config = make_config("resnet18", optimizer, grid="figure2", data="digits")
        run = finish(folder, config, 95.0)
        way = {"parameter": "b[0, 1]", "from_step": 0, "values": [0.0, 3.0, 1.0, 2.0 + i]}
        late = {"parameter": "b[0, 1]", "from_step": 200, "values": [5.0, 5.0]}
        other = {"parameter": "a[0]", "from_step": 0, "values": [9.0, 8.0, 8.5]}
        kept = defaultdict(list, {1: [other, way, [1.0, 2.0], {"parameter": "cut"}], config.scale.epochs: [late]})
        for epoch in range(1, config.scale.epochs + 1):
            more = {"q_mean_with_gradient": 70.0, "q_median_with_gradient": 7.0, "share_without_gradient": 0.25,
                    "q_mean_without_gradient": 1.86}  # fmt: skip
            run.append_oscillation(
                {"epoch": epoch, "step": 23 * epoch, "q_mean": 50.0 - epoch - i, "trajectories": kept[epoch], **more}
            )
    text = report(dirs, "figure2")
    n = config.scale.epochs
    assert f"{50.0 - n:.2f}" in text and f"*{49.0 - n:.2f}*" in text  # the lower Q is the best
    md = (dirs[1] / "tables/figure2.md").read_text()
    assert md.startswith("# REHEARSAL of Figure 2") and "| ours |" in md and "| paper |" not in md
    assert (
        "AdaRem, seed 0: Q = 39.00" in md
        and "25.0 % of the parameters got no gradient in the window (mean q 1.86); over" in md
        and "median 7.00" in md
    )
    assert all((dirs[1] / f"figures/{name}.png").exists() for name in ("figure1", "figure1-parameters", "figure2"))
    t = table(folder, dirs)
    fig = oscillation.over_training(t, "")
    titles = [ax.get_title() for ax in fig.axes]
    # path 3 + 2 + 1 and 3 + 2 + 2, displacement 2 and 3; a row an optimizer, a column a span
    assert titles == [
        "SGD, from iteration 0\nl = 6, d = 2, q = 3",
        "SGD, from iteration 200\nl = 0, d = 0, q = undefined",
        "AdaRem, from iteration 0\nl = 7, d = 3, q = 2.33",
        "AdaRem, from iteration 200\nl = 0, d = 0, q = undefined",
    ]
    drawn = fig.axes[2].get_lines()[0].get_xydata()
    assert drawn.tolist() == [[0, 0.0], [1, 3.0], [2, 1.0], [3, 3.0]]
    heads = [ax.get_title().split("\n")[0] for ax in oscillation.by_parameter(t, "").axes]
    assert heads == ["SGD, a[0]", "SGD, b[0, 1]", "AdaRem, a[0]", "AdaRem, b[0, 1]"]
    q = lines_of(curves(t, OSCILLATION, ""), 0)
    assert q["SGD"][0].tolist() == [1, 49.0] and q["AdaRem"][-1].tolist() == [n, 49.0 - n]
