import csv
import re
import shutil
import subprocess
from collections import defaultdict
from datetime import datetime

import pytest
import yaml

from adarem.report import load, make_report
from adarem.report.figures import oscillation
from adarem.report.figures.curves import curves
from adarem.report.figures.panels import OSCILLATION
from adarem.report.load import load_sweep
from adarem.report.manifest import read_manifest
from adarem.report.tables.table import build, read_paper
from adarem.run.config import from_dict, to_dict
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.reproduction import Standing
from tests.support import ROOT
from tests.support.sweeps import fingerprint, finish, make_config, write_grid


def rehearse(dirs, grid="table2", optimizers=("sgdm", "adarem"), models=("resnet18",)):
    folder = write_grid(dirs[0], grid, "digits", "rehearsal")
    for model in models:
        for i, optimizer in enumerate(optimizers):
            finish(folder, make_config(model, optimizer, grid=grid, data="digits"), 95.0 + i, 99.9)
    return folder


def report(dirs, grid="table2", **more):
    return make_report(grid=grid, runs_dir=dirs[0], results_dir=dirs[1], **more).text


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


@pytest.mark.parametrize(("grid", "optimizers"), [("table2", ("sgdm", "adarem")), ("figure2", ("sgd", "adarem"))])
def test_the_manifest_names_exactly_what_is_written(dirs, grid, optimizers):
    rehearse(dirs, grid, optimizers)
    made = make_report(grid=grid, runs_dir=dirs[0], results_dir=dirs[1])
    folder = dirs[1] / f"{grid}-digits"
    named = {folder / name for name in read_manifest(folder).files.all}
    assert named | {folder / "manifest.json"} == set(contents(folder))
    assert {p for p in made.written if folder in p.parents} == set(contents(folder))
    assert {p.name for p in made.written if p.parent == dirs[1]} == {"index.html", "claims.md", "claims.csv"}
    assert set(contents(dirs[1])) == set(made.written)
    assert all(p.stat().st_size > 100 and f"  {p}\n" in made.text for p in made.written)


def test_the_screen_has_the_table(dirs):
    rehearse(dirs)
    text = report(dirs)
    assert "REHEARSAL of Table 2" in text and "95.00" in text


def test_the_manifest_says_how_the_runs_stand(dirs, table2_runs):
    rehearse(dirs)
    report(dirs)
    of_paper, rehearsed = (read_manifest(dirs[1] / name) for name in ("table2", "table2-digits"))
    assert (of_paper.sweep, of_paper.grid, of_paper.heading) == ("table2", "table2", "Table 2")
    assert of_paper.standing == Standing("reproduction", "the paper's data, scale and settings")
    assert rehearsed.standing.kind == "rehearsal" and "embedded digits" in rehearsed.standing.reason
    assert rehearsed.title.startswith("REHEARSAL of Table 2") and rehearsed.sweep == "table2-digits"
    assert (of_paper.metrics, of_paper.runs, of_paper.finished) == (("top1", "top5"), 6, 6)
    assert of_paper.commits == ("c0ffee0123",)
    last = max(a["end"] for run in table2_runs.glob("*-s?") for a in RunDir(run).attempts())
    assert datetime.fromisoformat(of_paper.last_run_ended).timestamp() == int(last)


def test_a_report_of_the_same_runs_is_the_same_bytes(dirs):
    rehearse(dirs)
    report(dirs)
    first = contents(dirs[1])
    report(dirs)
    assert contents(dirs[1]) == first


def test_what_an_earlier_report_wrote_is_never_read(dirs, table2_runs):
    """Damaged to the last file, or gone: the next report is the same."""
    rehearse(dirs)
    report(dirs)
    first = contents(dirs[1])
    for path in first:
        path.write_bytes(b"\xff\xfe\x00")
    report(dirs)
    assert contents(dirs[1]) == first
    shutil.rmtree(dirs[1])
    report(dirs)
    assert contents(dirs[1]) == first


def test_sweeps_never_write_into_each_others_results(dirs, table2_runs):
    """A reproduction, its rehearsal, a trial and a smoke run of one grid."""
    rehearse(dirs)
    for data, scale in (("imagenet", "trial"), ("digits", "smoke")):
        folder = write_grid(dirs[0], data=data, scale=scale)
        finish(folder, make_config("resnet18", "sgdm", data=data, scale="smoke"), 50.0)
    found = {}
    for name, chosen in {
        "table2": {"data": "imagenet"},
        "table2-digits": {"data": "digits"},
        "table2-trial": {"data": "imagenet", "scale": "trial"},
        "table2-digits-smoke": {"data": "digits", "scale": "smoke"},
    }.items():
        made = make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1], **chosen)
        assert {p.parts[len(dirs[1].parts)] for p in made.written if p.parent != dirs[1]} == {name}
        found |= {p: p.read_bytes() for p in made.written if p.parent != dirs[1]}
        assert {p: p.read_bytes() for p in found} == found
    assert "71.20 ± 0.20" in (dirs[1] / "table2/table.md").read_text()
    assert (dirs[1] / "table2-digits/table.md").read_text().startswith("# REHEARSAL")


def test_a_grid_without_data_reports_all_of_its_sweeps(dirs, table2_runs):
    rehearse(dirs)
    rehearse(dirs, "figure2", ("sgd", "adarem"))
    report(dirs)
    assert {p.name for p in dirs[1].iterdir() if p.is_dir()} == {"table2", "table2-digits"}
    report(dirs, None)
    assert {p.name for p in dirs[1].iterdir() if p.is_dir()} == {"table2", "table2-digits", "figure2-digits"}


def test_a_report_of_all_sweeps_is_that_of_each(dirs, table2_runs):
    rehearse(dirs)
    for name in ("table2", "table2-digits"):
        report(dirs, name)
    each = contents(dirs[1])
    shutil.rmtree(dirs[1])
    report(dirs, None)
    assert contents(dirs[1]) == each


def test_runs_on_other_data_under_the_papers_name_are_a_rehearsal(dirs, table2_runs):
    """ImageNet by its config, 20 and 8 images by what it saw."""
    report(dirs)
    assert not (dirs[1] / "table2/table.md").read_text().startswith("# REHEARSAL")
    for seed in range(3):
        for optimizer in ("sgdm", "adarem"):
            run = RunDir(table2_runs / f"resnet18-{optimizer}-s{seed}")
            seen = fingerprint(run.config(), {"train": 20, "val": 8})
            run.write_result(run.result() | {"fingerprint": seen})
    text = report(dirs)
    assert text.startswith("REHEARSAL of Table 2") and "8 of 50,000 validation images" in " ".join(text.split())
    md = (dirs[1] / "table2/table.md").read_text()
    assert md.startswith("# REHEARSAL") and "| verdict |" not in md
    assert all("ImageNet with 20" in row["rehearsal"] for row in rows(dirs[1] / "table2/runs.csv"))
    assert {row["status"] for row in rows(dirs[1] / "claims.csv")} == {"not run"}
    assert "<title>REHEARSAL" in (dirs[1] / "table2/report.html").read_text()
    assert read_manifest(dirs[1] / "table2").standing.kind == "rehearsal"


def test_runs_that_are_gone_are_named_and_counted(dirs, table2_runs):
    report(dirs)
    shutil.move(table2_runs / "resnet18-sgdm-s0", dirs[0].parent / "aside")
    (table2_runs / "resnet18-sgdm-s1" / "config.yaml").write_text("[")
    text = " ".join(report(dirs).split())
    assert "70.70 " in text and "1 of 3" in text
    assert "Problem: table2/resnet18-sgdm-s1: " in text
    assert "Problem: table2/resnet18-sgdm-s0: planned, and its directory is gone" in text
    md = (dirs[1] / "table2/table.md").read_text()
    assert "## Planned, and not there" in md and "table2/resnet18-sgdm-s0: planned, and its directory is gone" in md
    page = (dirs[1] / "table2/report.html").read_text()
    assert "table2/resnet18-sgdm-s0: planned, and its directory is gone" in page


def test_a_sweep_without_a_readable_run_is_refused(dirs, table2_runs):
    """Rather than an empty table in the place of the last one."""
    report(dirs)
    before = contents(dirs[1])
    for run in table2_runs.glob("*-s?"):
        (run / "config.yaml").write_text("[")
    with pytest.raises(UserError, match=r"table2: no run there can be read \(table2/resnet18-adarem-s0: .*; restore"):
        report(dirs)
    assert contents(dirs[1]) == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (b"\xff\xfe\x00", ", line 1: byte 0xff is not UTF-8; save it as UTF-8, or restore it"),
        (b"name: {\n}}", ": not valid YAML at line 2; plan the grid again"),
        (b"name: table1\nmetrics: [top1]\naxes: {}", ": needs axes.model, axes.optimizer, metrics; plan it again"),
    ],
)
def test_another_sweeps_damaged_grid_costs_its_own_part_alone(dirs, table2_runs, damage, words):
    folder = write_grid(dirs[0], "table1")
    finish(folder, make_config("resnet18", "sgdm", grid="table1"), 70.0, epochs=False)
    report(dirs, "table1")
    kept = contents(dirs[1] / "table1")
    (folder / "grid.yaml").write_bytes(damage)
    made = make_report(runs_dir=dirs[0], results_dir=dirs[1])
    line = f"{folder / 'grid.yaml'}{words} (table1 is not reported)"
    assert made.failed == (line,) and f"Problem: {line}\n" in made.text
    assert contents(dirs[1] / "table1") == kept
    page = (dirs[1] / "index.html").read_text()
    assert f'<div class="bad">{line}</div>' in page and 'id="table2"' in page and 'id="table1"' not in page
    assert not make_report(grid="table2", runs_dir=dirs[0], results_dir=dirs[1]).failed
    with pytest.raises(UserError, match=re.escape(str(folder / "grid.yaml"))):
        report(dirs, "table1")


def test_every_run_is_read_once(dirs, table2_runs, monkeypatch):
    rehearse(dirs)
    rehearse(dirs, "figure2", ("sgd", "adarem"))
    seen = []
    of = load.read_run
    monkeypatch.setattr(load, "read_run", lambda path, *more: seen.append(path) or of(path, *more))
    report(dirs)
    assert len(seen) == len(set(seen)) == 6 + 2 + 2


def test_git_ignores_what_the_report_writes_by_default(dirs, table2_runs):
    """And keeps the paper's numbers and what is reported into results/rehearsals on purpose."""
    place = dirs[0].parent
    shutil.copy(ROOT / ".gitignore", place)
    shutil.copytree(ROOT / "results" / "paper", place / "results" / "paper")

    def git(*words):
        return subprocess.run(["git", *words], cwd=place, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    git("add", ".gitignore", "results/paper")
    before = git("status", "--porcelain", "--untracked-files=all")
    report(dirs, None)
    assert git("status", "--porcelain", "--untracked-files=all") == before
    make_report(runs_dir=dirs[0], results_dir=place / "results" / "rehearsals")
    added = git("status", "--porcelain", "--untracked-files=all").replace(before, "")
    assert "?? results/rehearsals/table2/table.md\n" in added and "?? results/rehearsals/claims.md\n" in added


def test_nothing_run_is_one_line_with_what_to_type(dirs):
    with pytest.raises(UserError, match="type: adarem launch grid=table2"):
        report(dirs)


def test_a_grid_only_planned_renders(dirs):
    folder = write_grid(dirs[0])
    config = make_config("resnet18", "sgdm")
    RunDir(folder / config.run_name).freeze(config)
    text = report(dirs)
    assert "0 of 1" in text and "no run has started" in text


def table(folder, dirs):
    sweep = load_sweep(folder)
    return build(sweep, read_paper(sweep.spec, dirs[1]))


def lines_of(fig, panel):
    return {line.get_label(): line.get_xydata() for line in fig.axes[panel].get_lines()}


def test_svg_needs_no_network_and_no_font(dirs):
    rehearse(dirs)
    report(dirs)
    svg = (dirs[1] / "table2-digits/figures/figure4.svg").read_text()
    assert "<text" not in svg and not re.search(r'(?:href|src)="http', svg)


def test_importing_the_package_is_cheap():
    import sys

    code = (
        "import sys, adarem.report; print([m for m in ('pandas', 'matplotlib', 'numpy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


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
    md = (dirs[1] / "figure2-digits/table.md").read_text()
    assert md.startswith("# REHEARSAL of Figure 2") and "| ours |" in md and "| paper |" not in md
    assert (
        "AdaRem, seed 0: Q = 39.00" in md
        and "25.0 % of the parameters got no gradient in the window (mean q 1.86); over" in md
        and "median 7.00" in md
    )
    drawn = {p.stem for p in (dirs[1] / "figure2-digits/figures").glob("*.png")}
    assert drawn == {"figure1", "figure1-parameters", "figure2"}
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


def test_another_setting_than_the_papers_is_a_variation_without_verdicts(dirs):
    folder = write_grid(dirs[0], seeds=[0, 1])
    for seed in (0, 1):
        for optimizer, top1 in (("sgdm", 70.6), ("adarem", 71.2)):
            config = make_config("resnet18", optimizer, seed, overrides={"optimizer.weight_decay": 5e-4})
            finish(folder, config, top1 + 0.1 * seed)
    text = report(dirs)
    assert text.startswith("VARIATION of Table 2") and "VARIATION, not a reproduction: another setting than the" in text
    manifest = read_manifest(dirs[1] / "table2")
    assert manifest.standing.kind == "variation" and "weight decay 0.0005" in manifest.standing.reason
    md = (dirs[1] / "table2/table.md").read_text()
    assert "| verdict |" not in md and "> **VARIATION, not a reproduction.**" in md
    assert {row["status"] for row in rows(dirs[1] / "claims.csv")} == {"not run"}
    for seed in (0, 1):  # the grid's own settings next to them: they alone have verdicts and are evidence
        for optimizer, top1 in (("sgdm", 70.6), ("adarem", 71.2)):
            finish(folder, make_config("resnet18", optimizer, seed), top1 + 0.1 * seed)
    report(dirs)
    assert read_manifest(dirs[1] / "table2").standing.kind == "reproduction"
    verdicts = {
        (row["variant"], row["verdict"] == "—") for row in rows(dirs[1] / "table2/table.csv") if row["n"] == "2"
    }
    assert verdicts == {("weight_decay=0.0005", True), ("", False)}
    evidence = [run for row in rows(dirs[1] / "claims.csv") for run in row["runs"].split()]
    assert evidence and not any("weight_decay" in run for run in evidence)


def test_a_study_has_neither_stamp_nor_verdict(dirs):
    axes = {"model": ["resnet18"], "optimizer": ["adam", "sgdm", "adarem"]}
    folder = write_grid(
        dirs[0], data="digits", scale="rehearsal", name="ours", paper=None, figure=None, axes=axes, title="My table",
        runs=[f"resnet18-{o}-s0" for o in ("adarem", "sgdm")],
    )  # fmt: skip
    for i, optimizer in enumerate(("adarem", "sgdm")):
        finish(folder, make_config("resnet18", optimizer, data="digits"), 95.0 + i)
    text = report(dirs, "ours")
    assert text.startswith("My table\n") and "Claims" not in text
    written = {p.name: p.read_text(errors="replace") for p in dirs[1].rglob("*") if p.is_file()}
    assert not {"claims.md", "claims.csv"} & written.keys()
    shown = {"table.md", "table.tex", "time.md", "report.html", "index.html"}
    for name in shown:
        assert "My table" in written[name], name
    for name in shown - {"time.md"}:
        assert "embedded digits" in written[name], name
    for name in (*shown, "table.csv"):
        assert not re.search("REHEARSAL|VARIATION|[Pp]aper|verdict,|Verdict|[Cc]laim", _without_code(written[name])), (
            name
        )
    manifest = read_manifest(dirs[1] / folder.name)
    assert manifest.standing.kind == "study" and manifest.heading == "My table"
    assert "|  | n | — | 1 | 1 |" in written["table.md"]  # in the grid's order; of Adam no run was planned
    assert "| | | Adam | SGDM | AdaRem |" in written["table.md"]
    assert [row["planned"] for row in rows(dirs[1] / folder.name / "table.csv")] == ["0", "1", "1"] * 2


def test_claims_on_a_study_are_its_authors(dirs):
    """A claims.yaml of one's own: names that the grid has, judged by the study, without a word of a paper."""
    own = {"mine": "Mine"}
    folder = write_grid(
        dirs[0], data="digits", scale="rehearsal", name="ours", paper=None, figure=None, title="My table",
        axes={"model": ["resnet18"], "optimizer": ["sgdm", "mine"]}, seeds=[0, 1, 2], labels={"optimizer": own},
    )  # fmt: skip
    for seed in range(3):
        finish(folder, make_config("resnet18", "sgdm", seed, data="digits"), 90.0 + 0.1 * seed)
        of_mine = to_dict(make_config("resnet18", "sgdm", seed, data="digits"))
        of_mine["optimizer"] = {"name": "mine", "class": "a:B", "label": "Mine", "lr": 0.1, "weight_decay": 0.0}
        finish(folder, from_dict(of_mine | {"cell": f"resnet18-mine-s{seed}"}), 95.0 + 0.12 * seed)
    claim = {
        "id": "mine-is-better", "claim": "Mine is better than SGDM.", "where": "here", "grid": "ours",
        "model": ["resnet18"], "optimizer": "mine", "against": ["sgdm"], "metric": "top1", "relation": "higher",
    }  # fmt: skip
    (dirs[1] / "paper").mkdir(parents=True)
    (dirs[1] / "paper" / "claims.yaml").write_text(yaml.safe_dump([claim]))
    text = report(dirs, "ours")
    assert "Claims: 1 supported, 0 exceeded, 0 contradicted, 0 undecided, 0 not run" in text
    md, page = (dirs[1] / "claims.md").read_text(), (dirs[1] / "index.html").read_text()
    assert (
        md.startswith("# Claims\n")
        and "| Mine is better than SGDM (difference above 0). | here | **supported** | — |" in md
    )
    assert "<h2>Claims</h2>" in page and "<title>Results</title>" in page
    (dirs[1] / "paper" / "claims.yaml").write_text(yaml.safe_dump([claim | {"optimizer": "mime"}]))
    with pytest.raises(UserError, match="mine-is-better: optimizer=mime: unknown; did you mean 'mine'"):
        report(dirs, "ours")


def _without_code(text):
    """Without a page's style, scripts, embedded images and classes, and without the headings of a CSV file."""
    text = re.sub(r"(?s)<(style|script).*?</\1>|data:image[^\"]*|class=\"[^\"]*\"", "", text)
    text = text.replace("a grid with no paper behind it", "")
    return text.partition("\n")[2] if text.startswith("table,") else text
