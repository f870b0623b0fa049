"""report.html in a real headless Chromium."""

import re
import shutil

import pytest

from adarem.report import make_report
from adarem.report.claims import judge as claims
from adarem.report.claims import ledger
from adarem.report.load import Sweeps
from adarem.report.make import load
from adarem.report.page.page import index_entry, render, render_index
from adarem.report.tables import times
from tests.support.browser import browse, look
from tests.support.sweeps import diverge, finish, make_config, write_grid

# Clicks like a reader.
SORT = """
  var table = document.querySelector("#table2 table.sort");
  var heads = table.querySelectorAll("th button");
  var column = function (k) {
    return Array.from(table.tBodies[0].rows).map(function (r) { return r.cells[k].innerText; });
  };
  heads[4].click(); seen.up = column(4);
  heads[4].click(); seen.down = column(4);
  heads[2].click(); seen.names = column(2);
  seen.aria = Array.from(table.querySelectorAll("th")).map(function (t) { return t.getAttribute("aria-sort"); });
"""
READ = """
  seen.claims = cells("#claims table"); seen.times = cells("#table2-times table");
  seen.folded = Array.from(document.querySelectorAll("#claims details")).map(function (d) { return d.innerText; });
  seen.rehearsed = cells("#table1-times table");
  seen.tallest = Math.max(...Array.from(document.querySelectorAll("tr"), function (r) { return r.offsetHeight; }));
"""


@pytest.fixture(scope="module")
def dirs(tmp_path_factory):
    """(runs_dir, results_dir) with a reproduction of Table 2 and a rehearsal of Table 1, reported."""
    place = tmp_path_factory.mktemp("page")
    dirs = place / "runs", place / "results"
    folder = write_grid(dirs[0], seeds=[0, 1])
    values = {"sgdm": 70.4, "adam": 9.4, "adarem": 99.8}
    for seed in (0, 1):
        for optimizer, value in values.items():
            finish(folder, make_config("resnet18", optimizer, seed), value + 0.2 * seed, epochs=seed == 0)
    lost = diverge(folder, make_config("resnet18", "adamw", 0))
    lost.log_file.write_text("".join(f"line {i}\n" for i in range(100)) + "<script>alert(1)</script> loss is nan\n")
    digits = write_grid(dirs[0], "table1", "digits", "rehearsal")
    finish(digits, make_config("resnet18", "sgdm", grid="table1", data="digits"), 95.0)
    figure2 = write_grid(dirs[0], "figure2", "digits", "rehearsal")
    for optimizer, q in (("sgd", 9.0), ("adarem", 5.0)):
        run = finish(figure2, make_config("resnet18", optimizer, grid="figure2", data="digits"), 95.0)
        way = {"parameter": "fc.weight[0, 1]", "from_step": 0, "values": [0.0, 3.0, 1.0, 2.0]}
        more = {"q_mean_with_gradient": q + 1, "q_median_with_gradient": q - 1, "share_without_gradient": 0.25}
        run.append_oscillation({"epoch": 10, "step": 220, "q_mean": q, "trajectories": [way], **more})
    make_report(grid="figure2", runs_dir=dirs[0], results_dir=dirs[1])
    make_report(grid="table1", runs_dir=dirs[0], results_dir=dirs[1])
    make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1])
    return dirs


@pytest.fixture
def results(dirs):
    return dirs[1]


@pytest.mark.parametrize("width", [1300, 420])
def test_a_reader_can_read_all_of_it(dirs, tmp_path, width):
    seen = look(dirs[1] / "report.html", tmp_path, width, READ)
    assert seen["inner"] == width and seen["errors"] == []
    assert seen["overflow"] <= 0  # a phone scrolls tables, not the page
    assert seen["wrong"] == []
    assert seen["tallest"] < 150  # a row is a few lines, not a column of broken words
    assert [alt for alt, *_ in seen["images"]] == [
        "figure4", "table2-time", "figure1", "figure1-parameters", "figure2", "figure5", "figure5-others",
        "table1-time", "table1-time-others",
    ]  # fmt: skip
    assert all(natural > 100 and 600 < shown < 1000 for _, natural, shown in seen["images"])
    assert len(seen["jumps"]) == 4 and all(free for _, free in seen["jumps"])  # not under the bar

    header, *rows = seen["claims"]
    ledger = claims.read_claims(dirs[1])
    assert header == ["Claim", "Where in the paper", "Status", "Rehearsed"]
    assert [r[0] for r in rows] == [c.claim for c in ledger]
    by_id = dict(zip([c.id for c in ledger], rows, strict=True))
    assert by_id["adarem-matches-sgdm"][2] == "contradicted"
    of_claims = [t for t in seen["folded"] if t.startswith("adarem-matches-sgdm: contradicted")]
    assert len(of_claims) == 1 and "ResNet-18: AdaRem against SGDM, top1: 99.900" in of_claims[0]
    # of the rehearsals, one seed each, Figure 2's has both sides of a claim, and Table 1's the one side of another; the
    # report of Table 2 came last
    assert {(c.grid, r[3]) for c, r in zip(ledger, rows, strict=True) if r[3] != "—"} == {
        ("figure2", "(REHEARSAL: undecided)"), ("table1", "(REHEARSAL: undecided)")
    }  # fmt: skip

    table2 = load(dirs[0] / "table2", dirs[1])
    assert seen["times"] == [list(part) for part in (times.rows(table2)[0], *times.rows(table2)[1])]
    adarem = next(r for r in seen["times"] if "AdaRem" in r)
    assert adarem[:4] == ["ResNet-18", "AdaRem", "70.67 (SGDM in the paper)", "31"]
    assert all("of the best cell" in r[2] for r in seen["rehearsed"][1:])


def test_headings_sort(results, tmp_path):
    seen = look(results / "report.html", tmp_path, 1300, SORT)
    # top-1 and top-5 of six optimizers; numbers by size, not by letter, and cells without a number last
    numbers = [float(re.match(r"[\d.]+", t)[0]) for t in seen["up"] if re.match(r"\d", t)]
    assert numbers == sorted(numbers) and numbers[0] == 9.5 and numbers[-1] == 99.9
    assert not re.match(r"\d", seen["up"][-1])
    falling = [float(re.match(r"[\d.]+", t)[0]) for t in seen["down"] if re.match(r"\d", t)]
    assert falling == sorted(numbers, reverse=True) and not re.match(r"\d", seen["down"][-1])
    assert seen["names"] == sorted(seen["names"], key=str.lower)
    assert seen["aria"] == [None, None, "ascending", *[None] * 6]


def test_every_section_is_there(results, tmp_path):
    dom, console = browse(results / "report.html", tmp_path)
    assert console == []
    for part in ("", "-figures", "-times", "-fairness", "-throughput", "-failures", "-provenance"):
        assert f'id="table2{part}"' in dom and f'id="table1{part}"' in dom
    assert 'id="claims"' in dom
    one, two, figure = (dom.index(f'id="{name}"') for name in ("table1", "table2", "figure2"))
    assert two < figure < one  # a reproduction goes before rehearsals
    assert "REHEARSAL, not a reproduction" in dom[one:] and "REHEARSAL" not in dom[two:figure].rpartition("<section")[0]
    assert "line 99" in dom and "line 50" not in dom  # a failed run's log, its end
    assert "<script>alert" not in dom and "&lt;script&gt;alert(1)&lt;/script&gt; loss is nan" in dom


def test_nothing_is_loaded_from_anywhere(results):
    text = (results / "report.html").read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)


def test_lost_records_leave_no_time_in_the_throughput_table(dirs, results, tmp_path):
    """Seed 1 of Table 2 kept no metrics.jsonl, which its failures say; and its seconds are not 0."""
    seen = look(results / "report.html", tmp_path, 1300, 'seen.rows = cells("#table2-throughput table");')
    rows = {r[0]: r[3:6] for r in seen["rows"]}
    assert rows["table2/resnet18-sgdm-s0"] == ["10,000", "900", "100"]
    assert rows["table2/resnet18-sgdm-s1"] == ["—", "—", "—"]
    page = (results / "report.html").read_text()
    assert "table2/resnet18-sgdm-s1: metrics.jsonl has no train record of epochs 1 to 100" in page


def test_a_cut_oscillation_file_is_a_failure_with_its_log(dirs, tmp_path):
    """The cell reads failed though the run is done."""
    folder = write_grid(tmp_path / "runs", "figure2", "digits", "rehearsal")
    run = finish(folder, make_config("resnet18", "sgd", grid="figure2", data="digits"), 95.0, epochs=False)
    run.append_oscillation({"epoch": 10, "step": 220, "q_mean": 9.0, "trajectories": []})
    run.oscillation_file.write_text(run.oscillation_file.read_text()[:-10])
    run.log_file.write_text("the last word\n")
    text = make_report(grid="figure2", runs_dir=tmp_path / "runs", results_dir=tmp_path / "results")
    text = " ".join(text.split())  # lines are folded at the terminal's width
    for told in ("1 unreadable line in oscillation.jsonl", "done, but its final q_mean cannot be read"):
        assert f"Problem: figure2-digits/resnet18-sgd-s0: {told}" in text
        assert f"resnet18-sgd-s0: {told}" in (tmp_path / "results/report.html").read_text()
    assert "<pre>the last word</pre>" in (tmp_path / "results/report.html").read_text()


def test_a_table_whose_runs_are_elsewhere_is_named(dirs, tmp_path):
    shutil.copytree(dirs[0] / "table2", tmp_path / "runs" / "table2")
    shutil.copytree(dirs[1], tmp_path / "results")
    make_report(grid="table2", runs_dir=tmp_path / "runs", results_dir=tmp_path / "results")
    text = (tmp_path / "results" / "report.html").read_text()
    assert "table1: its runs are not here; see tables/table1.md" in text


def test_a_page_of_one_sweep_holds_that_sweep_alone(dirs, tmp_path):
    table = load(dirs[0] / "table1-digits", dirs[1])
    figures = [dirs[1] / "figures" / f"{name}.svg" for name in ("figure5", "missing")]
    (tmp_path / "report.html").write_text(render(table, figures, ["table2: cannot be read <now>"]))
    seen = look(tmp_path / "report.html", tmp_path, 1300)
    assert seen["errors"] == seen["wrong"] == []
    assert [alt for alt, *_ in seen["images"]] == ["figure5"]
    assert seen["jumps"] == [[table.title, True]]
    text = (tmp_path / "report.html").read_text()
    assert "<title>REHEARSAL: AdaRem, results</title>" in text and 'id="claims"' not in text
    assert '<div class="bad">table2: cannot be read &lt;now&gt;</div>' in text


@pytest.mark.parametrize("width", [1300, 420])
def test_the_index_lists_every_sweep_and_the_claims(dirs, tmp_path, width):
    tables = [load(dirs[0] / name, dirs[1]) for name in ("table2", "table1-digits")]
    entries = [index_entry(t, "reproduction <b>", f"{t.sweep.name}/report.html") for t in tables]
    judged, _ = ledger.judge(Sweeps(dirs[0]), dirs[1])
    page = tmp_path / "index.html"
    page.write_text(render_index(entries, judged, ["figure2: cannot be read"]))
    script = """
      seen.links = Array.from(document.querySelectorAll("h2 a"), function (a) { return a.getAttribute("href"); });
      seen.table = cells("#table2 table"); seen.claims = cells("#claims table");
      seen.standing = Array.from(document.querySelectorAll("section > p.soft, .stamp"), function (p) {
        return p.innerText;
      });
    """
    seen = look(page, tmp_path, width, script)
    assert seen["errors"] == seen["wrong"] == [] and seen["overflow"] <= 0
    assert [title for title, _ in seen["jumps"]] == [*(t.title for t in tables), "The paper's claims"]
    assert all(free for _, free in seen["jumps"])
    assert seen["links"] == ["table2/report.html", "table1-digits/report.html"]
    assert seen["table"][1][:3] == ["ResNet-18 Top-1", "paper", "70.67"]
    assert len(seen["claims"]) == 1 + len(judged)
    assert seen["standing"][0] == "reproduction <b>"
    assert seen["standing"][1].startswith("REHEARSAL, not a reproduction. embedded digits")
    assert "<title>AdaRem, results</title>" in page.read_text()
    assert "<title>REHEARSAL: AdaRem, results</title>" in render_index(entries[1:], judged)
