"""report.html in a real headless Chromium."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest
from report_factory import diverge, finish, make_config, write_grid

from adarem.report import make_report

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=5000",
)  # fmt: skip

# Clicks like a reader and leaves what it saw in the page.
PROBE = """<script>
addEventListener("load", function () {
  var seen = {errors: window.probeErrors, width: document.documentElement.scrollWidth - innerWidth, images: []};
  document.querySelectorAll("img").forEach(function (i) { seen.images.push(i.naturalWidth); });
  var table = document.querySelector("#table2 table.sort");
  var heads = table.querySelectorAll("th button");
  var read = function (k) {
    return Array.from(table.tBodies[0].rows).map(function (r) { return r.cells[k].innerText; });
  };
  heads[4].click(); seen.up = read(4);
  heads[4].click(); seen.down = read(4);
  heads[2].click(); seen.names = read(2);
  seen.aria = Array.from(table.querySelectorAll("th")).map(function (t) { return t.getAttribute("aria-sort"); });
  var p = document.createElement("pre"); p.id = "probe"; p.textContent = JSON.stringify(seen); document.body.append(p);
});
</script>"""
ERRORS = "<script>window.probeErrors = []; onerror = function (m) { window.probeErrors.push(m); };</script>"


def browse(page, tmp_path, *flags):
    """(DOM after the scripts ran, console lines)."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "Chromium is not installed: apt-get install chromium"
    command = [chromium, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, "--dump-dom", f"file://{page}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def dirs(tmp_path_factory):
    """(runs_dir, results_dir) with a reproduction of Table 2 and a rehearsal of Table 1, reported."""
    place = tmp_path_factory.mktemp("page")
    dirs = place / "runs", place / "results"
    folder = write_grid(dirs[0], seeds=[0, 1])
    values = {"sgdm": 70.5, "adam": 9.5, "adarem": 100.0}
    for seed in (0, 1):
        for optimizer, value in values.items():
            finish(folder, make_config("resnet18", optimizer, seed), value, epochs=seed == 0)
    lost = diverge(folder, make_config("resnet18", "adamw", 0))
    lost.log_file.write_text("".join(f"line {i}\n" for i in range(100)) + "<script>alert(1)</script> loss is nan\n")
    digits = write_grid(dirs[0], "table1", "digits", "rehearsal")
    finish(digits, make_config("resnet18", "sgdm", grid="table1", data="digits"), 95.0)
    make_report(grid="table1", runs_dir=dirs[0], results_dir=dirs[1])
    make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1])
    return dirs


@pytest.fixture
def results(dirs):
    return dirs[1]


def test_the_page_in_a_browser(results, tmp_path):
    page = results / "report.html"
    probed = tmp_path / "probed.html"
    text = page.read_text()
    probed.write_text(text.replace("<head>", "<head>" + ERRORS).replace("</body>", PROBE + "</body>"))
    dom, console = browse(probed, tmp_path, "--window-size=500,900")
    assert console == []
    seen = json.loads(unescape(re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)[1]))
    assert seen["errors"] == []
    assert seen["width"] <= 0  # a phone scrolls tables, not the page
    assert len(seen["images"]) == 4 and all(w > 100 for w in seen["images"])

    # top-1 and top-5 of six optimizers; numbers by size, not by letter, and cells without a number last
    numbers = [float(re.match(r"[\d.]+", t)[0]) for t in seen["up"] if re.match(r"\d", t)]
    assert numbers == sorted(numbers) and numbers[0] == 9.5 and numbers[-1] == 100.0
    assert not re.match(r"\d", seen["up"][-1])
    falling = [float(re.match(r"[\d.]+", t)[0]) for t in seen["down"] if re.match(r"\d", t)]
    assert falling == sorted(numbers, reverse=True) and not re.match(r"\d", seen["down"][-1])
    assert seen["names"] == sorted(seen["names"], key=str.lower)
    assert seen["aria"] == [None, None, "ascending", *[None] * 6]


def test_every_section_is_there(results, tmp_path):
    dom, console = browse(results / "report.html", tmp_path)
    assert console == []
    for part in ("", "-figures", "-fairness", "-throughput", "-failures", "-provenance"):
        assert f'id="table2{part}"' in dom and f'id="table1{part}"' in dom
    assert 'id="claims"' in dom
    one, two = dom.index('id="table1"'), dom.index('id="table2"')
    assert two < one  # a reproduction goes before a rehearsal
    assert "REHEARSAL, not a reproduction" in dom[one:] and "REHEARSAL" not in dom[two:one]
    assert "line 99" in dom and "line 50" not in dom  # a failed run's log, its end
    assert "<script>alert" not in dom and "&lt;script&gt;alert(1)&lt;/script&gt; loss is nan" in dom


def test_nothing_is_loaded_from_anywhere(results):
    text = (results / "report.html").read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)


def test_a_table_whose_runs_are_elsewhere_is_named(dirs, tmp_path):
    shutil.copytree(dirs[0] / "table2", tmp_path / "runs" / "table2")
    shutil.copytree(dirs[1], tmp_path / "results")
    make_report(grid="table2", runs_dir=tmp_path / "runs", results_dir=tmp_path / "results")
    text = (tmp_path / "results" / "report.html").read_text()
    assert "table1: its runs are not here; see tables/table1.md" in text
