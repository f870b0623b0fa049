"""What the report says and writes of a search."""

import csv
import io

from adarem.report.labels import labels
from adarem.report.load import load_sweep
from adarem.report.make import load_table, make, write_sweep_results
from adarem.report.manifest import read_manifest
from adarem.report.search import tables
from adarem.report.search.trials import search_of
from adarem.report.tables import render
from tests.support.searches import write_search

SGDM = [({"lr": lr, "momentum": m}, 60 + 50 * lr + m) for lr in (0.1, 0.2, 0.4) for m in (0.5, 0.9)]
TRIALS = {"sgdm": SGDM, "adam": [({"lr": 0.01}, "diverged"), ({"lr": 0.02}, "diverged"), ({"lr": 0.04}, "planned")]}


def of(folder):
    sweep = load_sweep(folder)
    search = search_of(sweep)
    assert search is not None
    return search, labels(sweep)


def test_the_best_so_far(dirs) -> None:
    found = tables.best(*of(write_search(dirs[0], TRIALS)))
    on_edge = "highest learning rate, highest momentum"
    assert found.rows == [
        ("ResNet-18", "SGDM", "80.90", "lr 0.4, momentum 0.9", "80.50", "6", "0", on_edge),
        ("ResNet-18", "Adam", "—", "—", "—", "2 of 3", "2", "—"),
    ]
    assert found.header[2] == "Held-out top-1" and "highest holdout_top1" in found.notes[0]


def test_warnings_of_edges_divergence_ties_and_unequal_numbers(dirs) -> None:
    found = tables.warnings(*of(write_search(dirs[0], TRIALS)))
    assert "SGDM on ResNet-18: the best lies at the highest learning rate tried (0.4 of 0.1 to 0.4)" in found[0]
    assert "highest momentum tried (0.9 of 0.5 to 0.9)" in found[1]
    assert found[2].startswith(
        "Adam on ResNet-18: every finished trial diverged (2 of 3, 2 div.); search lower learning"
    )
    assert "different numbers of finished trials (SGDM 6, Adam 2)" in found[3]
    rows = [({"lr": lr}, 70.0) for lr in (0.1, 0.2, 0.4)]
    found = tables.warnings(*of(write_search(dirs[0] / "ties", {"sgdm": rows})))
    assert any("3 trials are equal to the best; those with the smaller settings count" in line for line in found)


def test_best_of_k_ends_with_all(dirs) -> None:
    found = tables.best_of_k(*of(write_search(dirs[0], TRIALS)))
    assert found.header == ["Network", "Optimizer", "k = 1", "k = 2", "k = 4", "all"]
    assert found.rows[0][-1] == "80.90 (6)" and found.rows[1][2:] == ["—", "—", "—", "— (2 of 3, 2 div.)"]
    assert "Dodge et al. 2019" in found.notes[0] and "without replacement" in found.notes[0]


def test_each_figure_has_its_csv(dirs) -> None:
    folder = write_search(dirs[0], TRIALS)
    written = write_sweep_results(load_table(folder, dirs[1]), dirs[1] / folder.name)
    names = {p.name for p in written}
    assert {f"search-{n}.csv" for n in ("best", "trials", "best-of-k", "learning-rate")} <= names
    assert {f"search-{n}.{end}" for n in ("best-of-k", "settings", "lr") for end in ("png", "svg")} <= names
    assert set(read_manifest(dirs[1] / folder.name).files.search) == {
        n for n in names if n.startswith("search-") and ".csv" in n
    }

    def rows(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO((dirs[1] / folder.name / name).read_text())))

    assert len(rows("search-trials.csv")) == 9 and rows("search-trials.csv")[0]["optimizer.momentum"] == "0.9"
    assert [r["state"] for r in rows("search-trials.csv")[-3:]] == ["diverged", "diverged", "unfinished"]
    assert [r["k"] for r in rows("search-best-of-k.csv")] == [*"123456", *"12"]
    assert rows("search-best-of-k.csv")[-1]["mean"] == "" and rows("search-best-of-k.csv")[-1]["all_diverged"] == "1"
    assert rows("search-best.csv")[0]["edges"] == "optimizer.lr=highest optimizer.momentum=highest"


def test_a_search_has_no_rows_for_what_nobody_planned(dirs) -> None:
    folder = write_search(dirs[0], TRIALS)
    report = make(grid="s", runs_dir=dirs[0], results_dir=dirs[1], data=None, scale=None)
    written = dirs[1] / folder.name
    texts = [
        report.text,
        *((written / name).read_text() for name in ("table.md", "table.csv", "table.tex", "report.html")),
    ]
    assert not any("0 of 1" in text for text in texts)
    # One row for the network, whatever settings were tried, and no time to accuracy of the best of many.
    assert "| ResNet-18 Held-out top-1 | best | 80.90 | div. |" in texts[1]
    assert "|  | trials | 6 | 2 of 3, 2 div. |" in texts[1]
    assert len(list(csv.DictReader(io.StringIO(texts[2])))) == 2
    assert not (written / "time.csv").exists() and "off the grid's own" not in report.text
    for part in ("best so far", "best of k trials", "all trials"):
        assert f"<h3>The search: {part}</h3>" in texts[4] and f"## The search: {part}" in texts[1]


def test_many_diverged_trials_are_one_problem(dirs) -> None:
    rows = [({"lr": lr}, "diverged") for lr in (0.1, 0.2, 0.4, 0.8)] + [({"lr": 1.6}, 50.0)]
    table = load_table(write_search(dirs[0], {"sgdm": rows}), dirs[1])
    problems = dict(render.sections(table))[render.FAILED]
    assert problems == ["4 runs of the search diverged; they are among all trials"]
