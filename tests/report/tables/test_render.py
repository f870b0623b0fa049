import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from adarem.report import stats as statistics
from adarem.report.load import load_sweep
from adarem.report.tables import latex
from adarem.report.tables import render as tables
from adarem.report.tables.table import build, read_paper
from adarem.run.directory import RunDir
from tests.support.sweeps import diverge, finish, make_config, start, write_grid


def table(folder, results):
    sweep = load_sweep(folder)
    return build(sweep, read_paper(sweep.spec, results))


def cell_texts(t):
    return {(line.row, line.kind): dict(zip(t.columns, line.texts, strict=True)) for line in tables.lines(t)}


def test_numbers_by_hand(dirs, table2_runs):
    t = table(table2_runs, dirs[1])
    text = cell_texts(t)
    top1 = "ResNet-18 Top-1"
    assert text[top1, "paper"]["sgdm"] == ("70.67", True)  # bold as printed, tied with AdaRem
    assert text[top1, "paper"]["adarem"] == ("70.67", True)
    assert text[top1, "paper"]["adabound"] == ("69.3", False)
    assert text[top1, "ours"]["sgdm"] == ("70.60 ± 0.10", False)
    assert text[top1, "ours"]["adarem"] == ("71.20 ± 0.20", True)
    assert text[top1, "difference"]["sgdm"] == ("−0.07", False)
    assert text[top1, "difference"]["adarem"] == ("+0.53", False)
    assert text[top1, "n"]["sgdm"] == ("3", False)
    assert text[top1, "ours"]["adam"] == ("—", False)
    assert text[top1, "n"]["adam"] == ("0 of 3", False)
    assert text[top1, "verdict"]["adam"] == ("pending", False)


def test_states_show_in_their_cells(dirs):
    folder = write_grid(dirs[0], seeds=[0, 1])
    finish(folder, make_config("resnet18", "sgdm", 0), 70.5)
    diverge(folder, make_config("resnet18", "sgdm", 1))
    diverge(folder, make_config("resnet18", "adam", 0))
    for optimizer, progress in (("adarem", {"epoch": 12, "epochs": 100}), ("rmsprop", None)):
        config = make_config("resnet18", optimizer)
        run = RunDir(folder / config.run_name)
        run.freeze(config)
        number = start(run, host="elsewhere")
        if progress:
            run.write_progress(progress)
        else:
            run.end_attempt(number, "failed", "CUDA out of memory")
    t = table(folder, dirs[1])
    ours = cell_texts(t)["ResNet-18 Top-1", "ours"]
    assert [ours[o][0] for o in t.columns] == ["70.50 (1 div.)", "div.", "—", "—", "failed", "ep 12/100"]
    assert not any(bold for _, bold in ours.values())  # one finished cell is no best
    md, screen = tables.markdown(t), tables.screen(t)
    for text in (md, screen):
        assert "resnet18-rmsprop-s0: failed: CUDA out of memory" in text
        assert "resnet18-adam-s0: diverged in epoch 3: loss is nan" in text
        assert "0.00" not in text.split("Data:")[0]


def test_a_rehearsal_says_so_everywhere(dirs):
    folder = write_grid(dirs[0], data="digits", scale="rehearsal")
    finish(folder, make_config("resnet18", "sgdm", data="digits"), 98.61, 99.9)
    t = table(folder, dirs[1])
    line = t.sweep.rehearsal
    assert line and tables.markdown(t).startswith("# REHEARSAL of Table 2")
    assert line in tables.markdown(t) and line in tables.screen(t).replace("\n    ", " ")
    assert tables.screen(t).startswith("REHEARSAL of Table 2")
    assert "REHEARSAL" in latex.latex(t)
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(t))))
    assert len(rows) == 12 and {r["rehearsal"] for r in rows} == {line}
    assert cell_texts(t)["ResNet-18 Top-1", "difference"]["sgdm"][0] == "(+27.94)"
    assert not any(kind == "verdict" for _, kind in cell_texts(t))


def test_header_states_where_the_numbers_come_from(dirs, table2_runs):
    md = tables.markdown(table(table2_runs, dirs[1]))
    for line in (
        "- Data: ImageNet: 1,281,167 training images (aaaaaaaaaaaa), 50,000 validation images (bbbbbbbbbbbb)",
        "- Scale: 100 epochs, global batch 1024, cosine learning rate, no warm-up",
        "- Seeds: 0, 1, 2",
        "- Commit: c0ffee012",
        "- World size: 16 (cpu), precision bf16",
        "- Evaluation: stored with a longest side of 500 px (proportion), shorter side resized to 256, "
        "centre crop 224, read by ffcv",
        "- Selection: final epoch",
    ):
        assert line in md.splitlines()
    assert "resnet18-sgdm-s2: done, commit c0ffee012" in md
    assert "## Warnings" not in md


def test_best_is_lowest_where_lower_is_better(dirs, tmp_path):
    """A perplexity grid, and a paper's file of its own."""
    results = dirs[1]
    (results / "paper").mkdir(parents=True)
    (results / "paper" / "t.csv").write_text(
        "model,optimizer,metric,value,source\nresnet18,sgdm,perplexity,71.56,Table 3\n"
        "resnet18,adarem,perplexity,69.13,Table 3\n"
    )
    axes = {"model": ["resnet18"], "optimizer": ["sgdm", "adarem"]}
    folder = write_grid(dirs[0], paper="t.csv", metrics=["perplexity"], axes=axes)
    for optimizer, value in (("sgdm", 72.0), ("adarem", 70.0)):
        run = finish(folder, make_config("resnet18", optimizer), 50.0)
        run.write_result(run.result() | {"perplexity": value})
    text = cell_texts(table(folder, results))
    assert [b for _, b in text["ResNet-18 Perplexity", "ours"].values()] == [False, True]
    assert [b for _, b in text["ResNet-18 Perplexity", "paper"].values()] == [False, True]


def test_settings_off_the_grid_get_rows_of_their_own(dirs):
    folder = write_grid(dirs[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.5)
    finish(folder, make_config("resnet18", "sgdm", overrides={"optimizer.weight_decay": 5e-4}), 69.0)
    t = table(folder, dirs[1])
    text = cell_texts(t)
    assert text["ResNet-18 Top-1", "ours"]["sgdm"][0] == "70.50"
    assert text["ResNet-18 Top-1 (weight decay 0.0005)", "ours"]["sgdm"][0] == "69.00"
    assert "Settings off the grid's own" in tables.markdown(t)
    sheet = [line for line in tables.markdown(t).splitlines() if line.startswith("| SGDM")]
    assert len(sheet) == 2 and all("2 configurations" in line for line in sheet)


def test_fairness_sheet_counts_momentum(dirs, table2_runs):
    md = tables.markdown(table(table2_runs, dirs[1]))
    assert "| SGDM | 0.4 (paper) | 4 | 0.0001, added to the gradient | momentum 0.9 | 100 | 1024 |" in md
    assert "| AdaRem | 0.4 (paper) | 0.4 | 0.0001, decoupled, × lr |" in md


def test_smallest_difference_that_the_seeds_could_show(dirs, table2_runs):
    """0.5, 0.6 and 0.7 with each seed: deviation 0.1, of which three seeds see 3.26 by the one paired t there is."""
    notes = tables.power_notes(table(table2_runs, dirs[1]))
    assert "differences of a seed 0.100 with 2 degrees of freedom" in notes[0] and "3 seeds each" in notes[0]
    points = float(re.search(r": ([0-9.]+) points", notes[0])[1])
    assert points == pytest.approx(TTestPower().solve_power(nobs=3, alpha=0.05, power=0.8) * 0.1, abs=0.01)
    assert "two-sided paired t, one test" in notes[0]
    for seed, value in enumerate((70.0, 70.4, 70.9)):
        finish(table2_runs, make_config("resnet18", "adam", seed), value, epochs=False)
    t = table(table2_runs, dirs[1])
    tests = [c for c in t.comparisons if c.metric == "top1"]
    assert len(tests) == 2 and "the first of 2 tests by Holm's correction" in tables.power_notes(t)[0]
    raw = [stats.ttest_rel([71.0, 71.2, 71.4], x).pvalue for x in ([70.5, 70.6, 70.7], [70.0, 70.4, 70.9])]
    assert [c.test.p for c in tests] == pytest.approx(raw)
    assert [c.test.adjusted for c in tests] == pytest.approx(multipletests(raw, method="holm")[1])


def test_the_order_of_verdicts_is_printed_as_it_is_applied(dirs, table2_runs):
    """Values that two rules fit get the verdict that the rule names first."""

    def verdict(values, paper=70.0, planned=2, diverged=0):
        return statistics.verdict(values, paper, planned=planned, diverged=diverged, lower_is_better=False)

    met = [
        verdict([70.0], planned=2, diverged=1),  # pending too
        verdict([70.0, 70.0], planned=3),  # underpowered too: the seeds did not differ
        verdict([70.0, 70.0]),  # reproduced too, were no difference no noise
        verdict([70.2, 70.21]),  # better too: h = 0.11
        verdict([75.0, 75.2]),  # underpowered too: h = 2.2
        verdict([70.0, 70.05], 70.4),  # h = 0.55 is above the margin and d inside of h
    ]
    assert met == ["diverged", "pending", "underpowered", "reproduced", "better", "underpowered"]
    order = statistics.VERDICT_RULE.partition("The first of these")[2]
    assert re.findall(r"\*([a-z ]+)\*", order) == [*met[:5], "worse", "within noise", "underpowered"]
    assert statistics.VERDICT_RULE in tables.markdown(table(table2_runs, dirs[1]))


def test_a_difference_has_the_unit_of_its_metric(dirs):
    """Perplexity has none."""
    folder = write_grid(dirs[0], seeds=[0, 1], metrics=["perplexity"])
    for seed in (0, 1):
        for optimizer, value in (("adarem", 70.0 + seed), ("sgdm", 72.0 + 2 * seed)):
            run = finish(folder, make_config("resnet18", optimizer, seed), 70.0, epochs=False)
            run.write_result(run.result() | {"perplexity": value})
    note = tables.power_notes(table(folder, dirs[1]))[0]
    assert note.startswith("Perplexity: smallest difference") and "points" not in note and "a seed 0.707 with" in note


def test_the_mean_q_is_shown_and_not_tested(dirs):
    """It has no finite expectation: the median decides, over all windows, as in the claims."""
    folder = write_grid(dirs[0], "figure2", seeds=[0, 1])
    for seed in (0, 1):
        for optimizer, q in (("adarem", 4.0), ("sgdm", 6.0)):
            run = finish(folder, make_config("resnet18", optimizer, seed, grid="figure2"), 70.0, epochs=False)
            for epoch in range(1, 101):
                of_window = {"q_mean": 50.0 + q, "q_median_with_gradient": q + seed * q / 10 + epoch / 100}
                run.append_oscillation({"epoch": epoch, "step": epoch, **of_window})
    t = table(folder, dirs[1])
    assert [c.metric for c in t.comparisons] == ["mean_q_median_with_gradient"] * 2
    ours = cell_texts(t)["ResNet-18 Median q over training", "ours"]["adarem"][0]
    assert ours.startswith(f"{np.mean([4.505, 4.905]):.2f} ± ")
    assert cell_texts(t)["ResNet-18 Q over training", "ours"]["sgdm"][0] == "56.00 ± 0.00"


def test_seeds_that_did_not_differ_show_no_power_and_no_test(dirs):
    folder = write_grid(dirs[0], seeds=[0, 1])
    for optimizer, top1 in (("sgdm", 70.5), ("adarem", 71.0)):
        for seed in (0, 1):
            finish(folder, make_config("resnet18", optimizer, seed), top1, 89.0)
    t = table(folder, dirs[1])
    assert all("the seeds of no cell differed" in note and "0.00" not in note for note in tables.power_notes(t))
    notes = tables.test_notes(t)
    assert len(notes) == 2 and all("the same with every seed" in note and "p =" not in note for note in notes)


def test_one_seed_draws_no_conclusion(dirs):
    folder = write_grid(dirs[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.5)
    finish(folder, make_config("resnet18", "adarem"), 71.5)
    t = table(folder, dirs[1])
    assert tables.test_notes(t) == []
    assert "one seed a cell" in tables.power_notes(t)[0]
    table_part = tables.markdown(t).split("Ours: mean")[0]
    assert "±" not in table_part
    assert cell_texts(t)["ResNet-18 Top-1", "verdict"]["sgdm"][0] == "underpowered"


def _tex_tokens(text):
    """Checks that braces and environments nest, and returns the rows of the tabular; no TeX is installed to ask."""
    text = re.sub(r"(?<!\\)%.*", "", text)
    depth, stack = 0, []
    for token in re.findall(r"\\(?:begin|end)\{\w+\}|\\.|[{}]", text):
        if m := re.match(r"\\(begin|end)\{(\w+)\}", token):
            if m[1] == "begin":
                stack.append(m[2])
            else:
                assert stack.pop() == m[2]
        elif token in "{}":
            depth += 1 if token == "{" else -1
            assert depth >= 0
    assert depth == 0 and stack == []
    body = re.search(r"\\toprule(.*)\\bottomrule", text, re.S)[1]
    rows = [r for r in re.split(r"\\\\", body.replace(r"\midrule", "")) if r.strip()]
    for bare in re.findall(r"(?<!\\)[#_^~]", body):
        raise AssertionError(f"unescaped {bare}")
    assert all(ord(c) < 128 for c in body), [c for c in body if ord(c) > 127]
    return [re.split(r"(?<!\\)&", r) for r in rows]


@pytest.mark.parametrize("data", ["imagenet", "digits"])
def test_latex_is_well_formed(dirs, data):
    folder = write_grid(dirs[0], data=data, scale="paper" if data == "imagenet" else "rehearsal", seeds=[0, 1])
    for seed in (0, 1):
        finish(folder, make_config("resnet18", "sgdm", seed, data=data), 70.5 + seed)
    diverge(folder, make_config("resnet18", "adam", data=data))
    finish(folder, make_config("resnet18", "adarem", data=data, overrides={"optimizer.weight_decay": 5e-4}), 69.0)
    tex = latex.latex(table(folder, dirs[1]))
    rows = _tex_tokens(tex)
    assert all(len(r) == 8 for r in rows)
    assert r"71.00 $\pm$ 0.71" in tex and "weight decay 0.0005" in tex and r"\textbf{70.67}" in tex
    assert "booktabs" in tex and tex.count(r"\toprule") == tex.count(r"\bottomrule") == 1


@pytest.mark.parametrize("data", ["imagenet", "digits"])
def test_latex_compiles(dirs, data, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex: apt-get install texlive-latex-base texlive-latex-recommended")
    folder = write_grid(dirs[0], data=data, scale="paper" if data == "imagenet" else "rehearsal", seeds=[0, 1])
    for seed in (0, 1):
        finish(folder, make_config("resnet18", "sgdm", seed, data=data), 70.5 + seed)
    diverge(folder, make_config("resnet18", "adam", data=data))
    finish(folder, make_config("resnet18", "adarem", data=data, overrides={"optimizer.weight_decay": 5e-4}), 69.0)
    (tmp_path / "table.tex").write_text(latex.latex(table(folder, dirs[1])))
    preamble = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{table.tex}\end{document}"
    (tmp_path / "paper.tex").write_text(preamble)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "paper.pdf").stat().st_size > 5000


def test_csv_traces_every_cell(dirs, table2_runs):
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(table(table2_runs, dirs[1])))))
    row = next(r for r in rows if (r["optimizer"], r["metric"]) == ("sgdm", "top1"))
    assert row["runs"].split() == [f"table2/resnet18-sgdm-s{i}" for i in range(3)]
    assert (row["commits"], row["ours"], row["n"], row["values"]) == ("c0ffee0123", "70.6000", "3", "70.5 70.6 70.7")
    half = 4.302653 * 0.1 / 3**0.5
    assert float(row["ci95_low"]) == pytest.approx(70.6 - half, abs=1e-4)
    empty = next(r for r in rows if r["optimizer"] == "adam")
    assert (empty["ours"], empty["difference"], empty["n"], empty["state"]) == ("", "", "0", "—")


def test_the_screen_fits_eighty_columns(dirs, table2_runs):
    t = table(table2_runs, dirs[1])
    assert max(map(len, tables.screen(t, 80).splitlines())) <= 80


def test_latex_executes_no_name(dirs):
    folder = write_grid(dirs[0], data="digits", scale="rehearsal")
    finish(folder, make_config("resnet18", "sgdm", data="digits"), 70.5)
    there = table(folder, dirs[1])
    hostile = "[x]*\\input{/etc/passwd}\n\\write18{id}%"
    labels = replace(there.labels, optimizers={"sgdm": hostile})
    of_folder = replace(there.sweep, folder=there.sweep.folder.with_name(hostile.replace("/", "~")))
    named = replace(there, sweep=of_folder, labels=labels)
    tex = latex.latex(named)
    assert r"\label{tab:-x---input--etc-passwd---write18-id--}" in tex
    assert r"{[}x{]}{*}\textbackslash{}input\{" in tex and "\\input" not in tex.replace("textbackslash{}input", "")
    assert r"\write18" not in tex
