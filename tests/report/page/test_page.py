"""report.html of a sweep and index.html over all, in a real headless Chromium."""

import re

import pytest

from adarem.report import make_report
from adarem.report.claims.entries import read_claims
from adarem.report.make import load_table
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
TALLEST = """
  seen.tallest = Math.max(...Array.from(document.querySelectorAll("tr"), function (r) { return r.offsetHeight; }));
"""
READ = f"""
  seen.times = cells("#table2-times table"); seen.rehearsed = cells("#table1-times table");
  {TALLEST}
"""
READ_CLAIMS = f"""
  seen.claims = cells("#claims table");
  seen.folded = Array.from(document.querySelectorAll("#claims details")).map(function (d) {{ return d.innerText; }});
  {TALLEST}
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
    make_report(runs_dir=dirs[0], results_dir=dirs[1])
    return dirs


@pytest.fixture
def results(dirs):
    return dirs[1]


def check_readable(seen, width):
    assert seen["inner"] == width and seen["errors"] == []
    assert seen["overflow"] <= 0  # a phone scrolls tables, not the page
    assert seen["wrong"] == []
    assert seen["tallest"] < 150  # a row is a few lines, not a column of broken words
    assert seen["jumps"] and all(free for _, free in seen["jumps"])  # not under the bar


@pytest.mark.parametrize("width", [1300, 420])
@pytest.mark.parametrize(
    ("sweep", "figures"),
    [
        ("table2", ["figure4", "table2-time"]),
        ("figure2-digits", ["figure1", "figure1-parameters", "figure2"]),
        ("table1-digits", ["figure5", "figure5-others", "table1-time", "table1-time-others"]),
    ],
)
def test_a_reader_can_read_all_of_a_sweep(dirs, tmp_path, width, sweep, figures):
    seen = look(dirs[1] / sweep / "report.html", tmp_path, width, READ)
    check_readable(seen, width)
    assert [alt for alt, *_ in seen["images"]] == figures
    assert all(natural > 100 and 600 < shown < 1000 for _, natural, shown in seen["images"])
    assert len(seen["jumps"]) == (5 if sweep == "figure2-digits" else 6)
    if sweep == "table2":
        table2 = load_table(dirs[0] / "table2", dirs[1])
        assert seen["times"] == [list(part) for part in (times.rows(table2)[0], *times.rows(table2)[1])]
        adarem = next(r for r in seen["times"] if "AdaRem" in r)
        assert adarem[:4] == ["ResNet-18", "AdaRem", "70.67 (SGDM in the paper, reached half the time)", "31"]
    if sweep == "table1-digits":
        assert len(seen["rehearsed"]) > 1 and all("of the best cell" in r[2] for r in seen["rehearsed"][1:])


@pytest.mark.parametrize("width", [1300, 420])
def test_a_reader_can_read_the_index(dirs, tmp_path, width):
    seen = look(dirs[1] / "index.html", tmp_path, width, READ_CLAIMS)
    check_readable(seen, width)
    assert len(seen["jumps"]) == 4  # three sweeps and the claims
    header, *rows = seen["claims"]
    claims = read_claims(dirs[1])
    assert header == ["Claim", "Where in the paper", "Status", "Rehearsed"]
    assert [r[0] for r in rows] == [c.sentence for c in claims]
    by_id = dict(zip([c.id for c in claims], rows, strict=True))
    assert by_id["adarem-matches-sgdm"][2] == "contradicted"
    of_claims = [t for t in seen["folded"] if t.startswith("adarem-matches-sgdm: contradicted")]
    assert len(of_claims) == 1 and "ResNet-18: AdaRem against SGDM, top1: 99.900" in of_claims[0]
    # of the rehearsals, one seed each, Figure 2's has both sides of a claim, and Table 1's the one side of another
    assert {(c.grid, r[3]) for c, r in zip(claims, rows, strict=True) if r[3] != "—"} == {
        ("figure2", "(REHEARSAL: undecided)"), ("table1", "(REHEARSAL: undecided)")
    }  # fmt: skip


def test_headings_sort(results, tmp_path):
    seen = look(results / "table2" / "report.html", tmp_path, 1300, SORT)
    # top-1 and top-5 of six optimizers; numbers by size, not by letter, and cells without a number last
    numbers = [float(re.match(r"[\d.]+", t)[0]) for t in seen["up"] if re.match(r"\d", t)]
    assert numbers == sorted(numbers) and numbers[0] == 9.5 and numbers[-1] == 99.9
    assert not re.match(r"\d", seen["up"][-1])
    falling = [float(re.match(r"[\d.]+", t)[0]) for t in seen["down"] if re.match(r"\d", t)]
    assert falling == sorted(numbers, reverse=True) and not re.match(r"\d", seen["down"][-1])
    assert seen["names"] == sorted(seen["names"], key=str.lower)
    assert seen["aria"] == [None, None, "ascending", *[None] * 6]


def test_every_section_is_there(results, tmp_path):
    for sweep, grid in (("table2", "table2"), ("table1-digits", "table1")):
        dom, console = browse(results / sweep / "report.html", tmp_path)
        assert console == []
        for part in ("", "-figures", "-times", "-fairness", "-throughput", "-failures", "-provenance"):
            assert f'id="{grid}{part}"' in dom
        assert ("REHEARSAL" in dom) == (sweep == "table1-digits")
    dom, _ = browse(results / "table2" / "report.html", tmp_path)
    assert "line 99" in dom and "line 50" not in dom  # a failed run's log, its end
    assert "<script>alert" not in dom and "&lt;script&gt;alert(1)&lt;/script&gt; loss is nan" in dom


def test_the_index_has_every_sweep_and_the_claims(results, tmp_path):
    dom, console = browse(results / "index.html", tmp_path)
    assert console == [] and 'id="claims"' in dom
    sweeps = ["table2", "table1-digits", "figure2-digits"]  # a reproduction goes before rehearsals
    at = [dom.index(f'id="{name}"') for name in sweeps]
    assert at == sorted(at)
    assert "REHEARSAL" not in dom[at[0] : at[1]].rpartition("<section")[0] and "REHEARSAL, not" in dom[at[1] :]
    for name in sweeps:
        assert f'href="{name}/report.html"' in dom and (results / name / "report.html").is_file()


@pytest.mark.parametrize("page", ["table2/report.html", "figure2-digits/report.html", "index.html"])
def test_nothing_is_loaded_from_anywhere(results, page):
    text = (results / page).read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"""src=["'](?!data:)""", text)
    assert set(re.findall(r"""href=["']([^"'#]+)""", text)) <= {
        "../index.html", "table2/report.html", "table1-digits/report.html", "figure2-digits/report.html"
    }  # fmt: skip


def test_lost_records_leave_no_time_in_the_throughput_table(dirs, results, tmp_path):
    """Seed 1 of Table 2 kept no metrics.jsonl, which its failures say; and its seconds are not 0."""
    seen = look(results / "table2" / "report.html", tmp_path, 1300, 'seen.rows = cells("#table2-throughput table");')
    rows = {r[0]: r[3:6] for r in seen["rows"]}
    assert rows["table2/resnet18-sgdm-s0"] == ["10,000", "900", "100"]
    assert rows["table2/resnet18-sgdm-s1"] == ["—", "—", "—"]
    page = (results / "table2" / "report.html").read_text()
    assert "table2/resnet18-sgdm-s1: metrics.jsonl has no train record of epochs 1 to 100" in page


def test_a_cut_oscillation_file_is_a_failure_with_its_log(dirs, tmp_path):
    """The cell reads failed though the run is done."""
    folder = write_grid(tmp_path / "runs", "figure2", "digits", "rehearsal")
    run = finish(folder, make_config("resnet18", "sgd", grid="figure2", data="digits"), 95.0, epochs=False)
    run.append_oscillation({"epoch": 10, "step": 220, "q_mean": 9.0, "trajectories": []})
    run.oscillation_file.write_text(run.oscillation_file.read_text()[:-10])
    run.log_file.write_text("the last word\n")
    text = make_report(grid="figure2", runs_dir=tmp_path / "runs", results_dir=tmp_path / "results").text
    text = " ".join(text.split())  # lines are folded at the terminal's width
    page = (tmp_path / "results/figure2-digits/report.html").read_text()
    for problem in ("1 unreadable line in oscillation.jsonl", "mean_q_mean and q_mean cannot be read"):
        assert re.search(f"Problem: figure2-digits/resnet18-sgd-s0: [^:]*{problem}", text)
        assert re.search(f"resnet18-sgd-s0: [^:]*{problem}", page)
    assert "<pre>the last word</pre>" in page
