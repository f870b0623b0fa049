"""What wandb shows beyond training: real wandb offline; workspace and report as a server on this machine gets them."""

import csv
import http.server
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adarem.plan.plan import make_plan
from adarem.report import make_report
from adarem.report.figures import draw
from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.sweep import read_campaign, write_campaign
from adarem.tracking import workspace
from adarem.tracking.publish import publish, replay
from tests.support.sweeps import finish, make_config, write_grid
from tests.tracking.test_sync import history, started, summary

Command = Callable[..., subprocess.CompletedProcess[str]]
REHEARSAL = (
    "embedded digits, 10 epochs, global batch 64: shows that the pipeline works, says nothing about the paper's claims"
)


@pytest.fixture
def finished(tiny_run: Callable[..., Path], run_here: Callable[..., int]) -> RunDir:
    run = RunDir(tiny_run("optimizer=adarem", "train.oscillation=true", "train.watched_steps=0"))
    assert run_here(run.path) == exitcodes.OK
    return run


def campaign(tmp_path: Path, data: str = "digits", grid: str = "table2") -> Path:
    """A finished campaign of two cells, one of them with two seeds, under tmp_path/runs."""
    scale = "paper" if data == "imagenet" else "rehearsal"
    folder = write_grid(tmp_path / "runs", grid, data, scale)
    write_campaign(folder, read_campaign(folder) | {"data": data, "scale": scale})
    for optimizer, seed, top1 in (("sgdm", 0, 70.0), ("adarem", 0, 71.0), ("adarem", 1, 71.5)):
        finish(folder, make_config("resnet18", optimizer, seed, grid=grid, data=data), top1)
    return folder


def report_on(folder: Path, tmp_path: Path, **chosen: Any) -> Path:
    make_report(grid="table2", runs_dir=folder.parent, results_dir=tmp_path / "results", **chosen)
    return tmp_path / "results"


# replay


def test_replay_builds_the_run_from_its_directory_alone(finished: RunDir) -> None:
    folder = finished.path.parent
    assert not list(finished.path.glob("wandb/offline-run-*"))
    assert replay(folder, "offline") == (1, [])
    logged = [r for r in history(finished) if "epoch" in r]
    assert [r["val/top1"] for r in logged if "val/top1" in r] == [
        m["top1"] for m in finished.metrics() if m["split"] == "val"
    ]
    assert [r["oscillation/q_mean"] for r in logged if "oscillation/q_mean" in r] == [
        o["q_mean"] for o in finished.oscillation()
    ]


def test_replay_goes_on_after_damaged_runs_and_names_them(tmp_path: Path, adarem_command: Command) -> None:
    folder = campaign(tmp_path)
    damaged, edited, whole = (folder / f"resnet18-{name}" for name in ("adarem-s0", "adarem-s1", "sgdm-s0"))
    (damaged / "config.yaml").write_text("{")
    result = json.loads((edited / "result.json").read_text())
    (edited / "result.json").write_text(json.dumps(result | {"top1": 99.0}))
    lost = folder / "resnet18-adam-s0"
    finish(folder, make_config("resnet18", "adam", data="digits"), 69.0)
    (lost / "config.yaml").unlink()
    finish(folder, make_config("resnet18", "adamw", data="digits"), 69.0)
    with open(folder / "resnet18-adamw-s0" / "metrics.jsonl", "a") as f:
        f.write('{"epoch": 10, "split": "val"}\n')  # without its step
    done = adarem_command("wandb", "replay", ".", "--mode=offline", cwd=folder)
    assert done.returncode == exitcodes.USER_ERROR and done.stdout == "1 runs of . replayed, 4 not\n"
    lines = done.stderr.splitlines()
    assert len(lines) == 4 and all(line.startswith("adarem wandb: not replayed: ") for line in lines)
    for line, told in zip(
        lines,
        (
            f"{lost}: no config.yaml there",
            f"{folder / 'resnet18-adamw-s0'}: damaged (KeyError: 'step')",
            f"{damaged / 'config.yaml'}: not valid YAML",
            f"{edited / 'result.json'}: not as training wrote it (checksum differs)",
        ),
        strict=True,
    ):
        assert told in line
    assert started(RunDir(whole)).run_group == "table2-digits · ResNet-18 · SGDM"  # though called as "."
    assert summary(RunDir(whole))["top1"] == 70.0
    # of the edited one the curves are sent, and no final figure
    assert "top1" not in summary(RunDir(edited))
    assert [r["val/top1"] for r in history(RunDir(edited))][-1] == 71.5


def test_nothing_to_replay(tiny_run: Callable[..., Path]) -> None:
    folder = tiny_run().parent
    with pytest.raises(UserError, match="no run there has finished an epoch"):
        replay(folder, "offline")


def test_a_replay_of_runs_that_have_wandb_switched_off_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wandb is disabled, by wandb.mode of the run or WANDB_MODE; give --mode="):
        replay(campaign(tmp_path), None)


def test_online_without_a_key_is_one_line(tmp_path: Path, adarem_command: Command) -> None:
    folder = campaign(tmp_path)
    for action in ("replay", "publish"):
        report_on(folder, tmp_path, data="digits", scale=None)
        words = ["--mode=online", *([f"--results-dir={tmp_path / 'results'}"] if action == "publish" else [])]
        done = adarem_command("wandb", action, str(folder), *words, HOME=str(tmp_path), WANDB_MODE="online")
        assert done.returncode == exitcodes.USER_ERROR
        assert "`wandb login` stores a key" in done.stderr and len(done.stderr.strip().splitlines()) == 1


# publish


def test_publish_logs_the_reports_table_and_figures(tmp_path: Path) -> None:
    folder = campaign(tmp_path)
    results = report_on(folder, tmp_path, data="digits", scale=None)
    publish(folder, results, "offline")
    run, run_record = RunDir(folder), started(RunDir(folder))
    assert run_record.display_name == "REHEARSAL of Table 2: table and figures"
    assert (run_record.job_type, run_record.run_group) == ("report", "table2-digits · report")
    assert list(run_record.tags) == ["table2-digits", "rehearsal"] and run_record.notes == f"REHEARSAL: {REHEARSAL}"
    logged = {key.split("/_type")[0] for row in history(run) for key in row if key.endswith("/_type")}
    drawn = {f"figures/{f.stem}" for f in (results / folder.name / "figures").glob("*.png")}
    assert drawn >= {"figures/figure4", "figures/table2-time"}
    assert logged == {"table"} | drawn
    table = json.loads(next(folder.glob("wandb/offline-run-*/files/media/table/*.table.json")).read_text())
    with open(results / folder.name / "table.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert table["columns"] == list(rows[0]) and len(table["data"]) == len(rows) == 12
    adarem = next(dict(zip(table["columns"], r, strict=True)) for r in table["data"] if "adarem" in r and "top1" in r)
    assert (adarem["label"], adarem["paper"], adarem["ours"], adarem["n"]) == ("ResNet-18, AdaRem", 70.67, 71.25, 2.0)
    assert next(r[table["columns"].index("ours")] for r in table["data"] if "adam" in r) is None


def test_publishing_again_is_the_same_run(tmp_path: Path) -> None:
    folder, other = campaign(tmp_path), campaign(tmp_path, data="imagenet")
    ids = []
    for of, chosen in ((folder, "digits"), (folder, "digits"), (other, "imagenet")):
        publish(of, report_on(of, tmp_path / chosen, data=chosen, scale=None), "offline")
        ids.append(started(RunDir(of)).run_id)
    assert ids[0] == ids[1] != ids[2]


def test_a_reproduction_carries_no_stamp_of_a_rehearsal(tmp_path: Path) -> None:
    folder = campaign(tmp_path, data="imagenet")
    publish(folder, report_on(folder, tmp_path, data="imagenet", scale=None), "offline")
    run_record = started(RunDir(folder))
    assert run_record.display_name == "Table 2: table and figures" and run_record.notes == ""
    assert list(run_record.tags) == ["table2"]


def test_publish_refuses_a_sweep_without_a_report(tmp_path: Path) -> None:
    rehearsal, full = campaign(tmp_path), campaign(tmp_path, data="imagenet")
    results = report_on(rehearsal, tmp_path, data="digits", scale=None)
    command = f"adarem report grid=table2 runs_dir={tmp_path / 'runs'} results_dir={results}"
    with pytest.raises(UserError) as raised:
        publish(full, results, "offline")
    assert str(raised.value) == f"{results / 'table2/manifest.json'}: no such file; `{command}` writes it"
    assert not (full / "wandb").exists()


def test_publish_sends_no_file_from_outside_of_the_results(tmp_path: Path) -> None:
    folder = campaign(tmp_path)
    results = report_on(folder, tmp_path, data="digits", scale=None)
    path = results / folder.name / "manifest.json"
    path.write_text(path.read_text().replace("figures/figure4.png", "../../secret.png"))
    with pytest.raises(UserError, match="manifest.json: files.figures.0: .*needs a path inside of"):
        publish(folder, results, "offline")


def test_publish_needs_the_report_whole(tmp_path: Path) -> None:
    folder, results = campaign(tmp_path), tmp_path / "results"
    with pytest.raises(UserError, match=r"manifest.json: no such file; `adarem report grid=table2-digits .*` writes"):
        publish(folder, results, "offline")
    report_on(folder, tmp_path, data="digits", scale=None)
    path = results / folder.name / "table.csv"
    text = path.read_text()
    for damaged, told in (
        (text.splitlines()[0] + "\n", "holds no cell"),
        (text.rstrip()[:-60] + "\n", "not a table as the report writes it"),
        (text.replace("71.2500", "71.x5"), "not a table as the report writes it"),
    ):
        path.write_text(damaged)
        with pytest.raises(UserError, match=told):
            publish(folder, results, "offline")
    path.write_text(text)
    (results / folder.name / "figures" / "figure4.png").unlink()
    with pytest.raises(UserError, match=r"figure4.png: no such file; `adarem report .*` draws it"):
        publish(folder, results, "offline")


def test_an_empty_campaign_is_a_mistake_in_one_line(tmp_path: Path) -> None:
    folder = write_grid(tmp_path / "runs")
    for act in (lambda: publish(folder, tmp_path, "offline"), lambda: workspace.save(folder, "workspace", "me")):
        with pytest.raises(UserError, match="table2: no run there, or none whose config.yaml can be read"):
            act()


# workspace and report


class Server:
    """Answers what wandb asks before and with a saved view, and keeps that."""

    def __init__(self) -> None:
        self.views: list[dict[str, Any]] = []
        self.projects = ["adarem"]
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.environment = {
            "WANDB_BASE_URL": f"http://127.0.0.1:{self._http.server_port}",
            "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567",
        }

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "1", "internalId": "1", "name": "adarem", "entityName": "someone"}
        if "upsertView" in query:
            self.views.append(variables)
            view = {
                "id": "Vmlldzox", "type": variables["type"], "name": variables["name"], "description": "",
                "displayName": variables["displayName"], "project": project, "spec": variables["spec"],
                "updatedAt": "2026-01-01T00:00:00Z",
            }  # fmt: skip
            return {"upsertView": {"view": view, "inserted": True}}
        if "ProjectInternalId" in query:
            return {"project": project if variables["projectName"] in self.projects else None}
        if "GetProjects" in query:
            nodes = [
                project | {"name": name, "createdAt": "", "isBenchmark": False, "user": None} for name in self.projects
            ]
            page = {"endCursor": None, "hasNextPage": False}
            return {"models": {"edges": [{"node": node} for node in nodes], "pageInfo": page}}
        return {
            "viewer": {"id": "1", "entity": "someone", "username": "someone", "flags": "{}", "teams": {"edges": []}}
        }

    def _handler(self) -> type:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = json.loads(body) if self.path == "/graphql" else {"query": ""}
                answer = {"data": server.answer(asked["query"], asked.get("variables") or {})}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def saved(server: Server, tmp_path: Path, adarem_command: Command) -> Callable[..., dict[str, Any]]:
    """Plans a grid, saves its workspace or report by the command line; returns what the server got, spec parsed."""

    def save(action: str, *overrides: str) -> dict[str, Any]:
        plan = make_plan([*overrides, f"runs_dir={tmp_path / 'runs'}"])
        plan.write()
        words = ["--entity=someone"]
        if action == "report":
            results = tmp_path / "results"
            data, scale = plan.grid["data"], plan.grid["scale"]
            make_report(grid=plan.grid["name"], runs_dir=tmp_path / "runs", results_dir=results, data=data, scale=scale)
            words.append(f"--results-dir={results}")
        done = adarem_command("wandb", action, str(plan.folder), *words, **server.environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{server.environment['WANDB_BASE_URL']}/someone/adarem")
        view = server.views.pop()
        assert not server.views and (view["entityName"], view["projectName"]) == ("someone", "adarem")
        return view | {"spec": json.loads(view["spec"])}

    return save


def panels(row: list[dict[str, Any]]) -> list[tuple[str, str | None, list[str]]]:
    """Title, x axis and keys of each panel."""
    return [(p["config"]["chartTitle"], p["config"].get("xAxis"), p["config"]["metrics"]) for p in row]


def curves(network: str) -> list[tuple[str, str, list[str]]]:
    return [
        ("Train loss", "epoch", [f"{network}/train_loss"]),
        ("Test error (%)", "epoch", [f"{network}/test_error"]),
        ("Test error (%) against time", "hours", [f"{network}/test_error"]),
    ]


FINAL = [
    ("Final top-1 (%)", None, ["top1"]), ("Best top-1 (%)", None, ["best_top1"]), ("Final top-5 (%)", None, ["top5"]),
]  # fmt: skip
Q = [
    ("Q, mean of l / d (all that moved)", "epoch", ["oscillation/q_mean"]),
    ("Median of l / d (with a gradient)", "epoch", ["oscillation/q_median_with_gradient"]),
]


def throughput(unit: str) -> list[tuple[str, str, list[str]]]:
    return [
        (f"{unit.title()} a second", "epoch", [f"train/{unit}_per_s"]),
        ("Share of training spent waiting for data", "epoch", ["train/data_wait"]),
        ("Learning rate", "epoch", ["train/lr"]),
    ]


def sections(view: dict[str, Any]) -> dict[str, list[tuple[str, str | None, list[str]]]]:
    return {s["name"]: panels(s["panels"]) for s in view["spec"]["section"]["panelBankConfig"]["sections"]}


def filters(runset: dict[str, Any]) -> list[tuple[str, str, str, Any]]:
    assert all(f.get("connector", "AND") == "AND" and not f["disabled"] for f in runset["filters"]["filters"])
    return [(f["key"]["section"], f["key"]["name"], f["op"], f["value"]) for f in runset["filters"]["filters"]]


def test_the_workspace_of_table_1_has_a_row_a_network(saved: Callable[..., dict[str, Any]]) -> None:
    view = saved("workspace", "grid=table1", "data=digits", "seeds=[0,1]")
    assert view["type"] == "project-view"
    assert view["displayName"] == (
        "REHEARSAL of Table 1. Top-1 test accuracy of six networks, SGDM against AdaRem-S (table1-digits)"
    )
    assert list(sections(view).items()) == [
        ("ResNet-50 (Figure 5)", curves("ResNet_50")),
        ("ResNet-18 (Figure 5)", curves("ResNet_18")),
        ("MobileNetV2-1.0 (Figure 5)", curves("MobileNetV2_1_0")),
        ("MobileNetV2-0.5 (Figure 5)", curves("MobileNetV2_0_5")),
        ("ShuffleNetV2-1.0 (Figure 5)", curves("ShuffleNetV2_1_0")),
        ("ShuffleNetV2-0.5 (Figure 5)", curves("ShuffleNetV2_0_5")),
        ("Final and best", FINAL),
        ("Throughput", throughput("images")),
    ]
    section = view["spec"]["section"]
    for row in section["panelBankConfig"]["sections"]:
        assert row["isOpen"] and (row["flowConfig"]["columnsPerPage"], row["flowConfig"]["rowsPerPage"]) == (3, 1)
        lines = [p["config"] for p in row["panels"] if p["viewType"] == "Run History Line Plot"]
        assert {(c["groupAgg"], c["groupArea"], c["smoothingWeight"], c["limit"]) for c in lines} <= {
            ("mean", "stddev", 0, 24)
        }
    (runset,) = section["runSets"]
    assert runset["grouping"] == [{"section": "config", "name": "table_cell.value"}]
    assert filters(runset) == [("run", "tags", "IN", ["table1-digits"]), ("run", "jobType", "=", "train")]
    assert runset["runFeed"]["columnOrder"] == [
        "run:displayName", "summary:top1", "summary:top5", "summary:best_top1", "summary:status"
    ]  # fmt: skip
    assert section["settings"]["xAxis"] == "epoch" and section["settings"]["maxRuns"] == 24
    assert section["settings"]["useRunsTableGroupingInPanels"] and not section["settings"]["shouldAutoGeneratePanels"]
    assert sorted(section["customRunColors"].values()) == 6 * [draw.STYLES["sgdm"][0]] + 6 * [
        draw.STYLES["adarem_s"][0]
    ]


def test_the_keys_of_a_workspace_are_those_that_runs_log(saved: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """And its filters and groups those that runs have."""
    view = saved("workspace", "grid=figure2", "data=digits", "optimizer=adarem")
    assert sections(view) == {
        "ResNet-18": curves("ResNet_18"),
        "Oscillation (Figure 2)": Q,
        "Final and best": [*FINAL, ("Q in the last window", None, ["q_mean"])],
        "Throughput": throughput("images"),
    }
    run = RunDir(tmp_path / "runs" / "figure2-digits" / "resnet18-adarem-s0")
    run_of = finish(run.path.parent, run.config(), 97.0)
    run_of.append_oscillation({"epoch": 10, "step": 12510, "q_mean": 2.0, "q_median_with_gradient": 1.5})
    assert replay(run.path.parent, "offline") == (1, [])
    logged = {key for row in history(run) for key in row}
    figures = summary(run)
    for row in view["spec"]["section"]["panelBankConfig"]["sections"]:
        for p in row["panels"]:
            known = logged if p["viewType"] == "Run History Line Plot" else figures
            assert {*p["config"]["metrics"], p["config"].get("xAxis", "top1")} <= set(known)
    (runset,) = view["spec"]["section"]["runSets"]
    pinned = [c.removeprefix("summary:") for c in runset["runFeed"]["columnOrder"] if c.startswith("summary:")]
    assert pinned == ["top1", "top5", "best_top1", "q_mean", "status"] and set(pinned) <= set(figures)
    run_record = started(run)
    (_, _, _, tags), (_, _, _, job_type) = filters(runset)
    assert set(tags) <= set(run_record.tags) and job_type == run_record.job_type
    settings = {i.key: json.loads(i.value_json) for i in run_record.config.update}
    (color,) = view["spec"]["section"]["customRunColors"]
    assert "config%3Atable_cell.value" in color and settings["table_cell"] == "ResNet-18 · AdaRem"
    assert "ResNet-18%20%C2%B7%20AdaRem%22" in color


def test_the_workspace_of_table_3_shows_perplexity_and_tokens(saved: Callable[..., dict[str, Any]]) -> None:
    view = saved("workspace", "grid=table3", "data=pydoc")
    assert sections(view) == {
        "AWD-LSTM, small": [
            ("Train loss", "epoch", ["AWD_LSTM_small/train_loss"]),
            ("Validation perplexity", "epoch", ["AWD_LSTM_small/val_perplexity"]),
            ("Validation perplexity against time", "hours", ["AWD_LSTM_small/val_perplexity"]),
        ],
        "Final and best": [
            ("Test perplexity", None, ["perplexity"]),
            ("Final validation perplexity", None, ["val_perplexity"]),
            ("Best validation perplexity", None, ["best_val_perplexity"]),
        ],
        "Throughput": throughput("tokens"),
    }
    assert sorted(view["spec"]["section"]["customRunColors"].values()) == sorted(
        draw.STYLES[o][0] for o in ("sgdm", "adam", "adarem")
    )


def test_the_workspace_of_a_reproduction_carries_no_stamp(saved: Callable[..., dict[str, Any]]) -> None:
    view = saved("workspace", "grid=table2", "data.root=/data/imagenet", "wandb.entity=someone")
    assert view["displayName"] == "Table 2. Test accuracy of ResNet-18 under six optimizers (table2)"


def test_settings_beside_the_grids_own_take_wandbs_colors(tmp_path: Path) -> None:
    make_plan(["grid=lambda", "data=digits", f"runs_dir={tmp_path}"]).write()
    assert workspace.read(tmp_path / "lambda-digits").colors == {
        "ResNet-18 · AdaRem (λ 0.999 once an epoch)": draw.STYLES["adarem"][0]
    }
    assert {name: style[0] for name, style in draw.STYLES.items()} == workspace.COLORS


def blocks(view: dict[str, Any]) -> list[tuple[str, Any]]:
    """(kind, what it holds) of a saved report; the empty paragraphs left out."""

    def text(block: dict[str, Any]) -> str:
        return "".join(c.get("text") or text(c) for c in block.get("children", ()))

    found = []
    for block in view["spec"]["blocks"]:
        if block["type"] == "panel-grid":
            found.append(("grid", block["metadata"]))
        elif text(block):
            found.append((block["type"] + str(block.get("level", "")), text(block)))
    return found


def test_the_saved_report_lays_the_papers_figures_out(saved: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    view = saved("report", "grid=table1", "data=digits", "model=resnet18,shufflenet_v2_0.5")
    title = "REHEARSAL of Table 1. Top-1 test accuracy of six networks, SGDM against AdaRem-S (table1-digits)"
    assert (view["type"], view["displayName"]) == ("runs", title)
    assert view["description"] == REHEARSAL and view["spec"]["width"] == "fluid"
    found = blocks(view)
    assert found[0] == ("callout-block", f"REHEARSAL, not a reproduction. {REHEARSAL}.")
    assert [text for kind, text in found if kind.startswith("heading")] == [
        "Table and figures", "Runs", "ResNet-18 (Figure 5)", "ShuffleNetV2-0.5 (Figure 5)", "Final and best",
        "Throughput",
    ]  # fmt: skip
    published, *rows = [g for kind, g in found if kind == "grid"]
    (runset,) = published["runSets"]
    assert filters(runset) == [("run", "tags", "IN", ["table1-digits"]), ("run", "jobType", "=", "report")]
    table, *figures = published["panelBankSectionConfig"]["panels"]
    assert table["config"]["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"] == "table"
    keys = [key for f in figures for key in f["config"]["mediaKeys"]]
    assert keys[0] == "figures/figure5" and "figures/table1-time" in keys
    assert sorted(keys) == sorted(f"figures/{f.stem}" for f in (tmp_path / "results").glob("*/figures/*.png"))
    of_campaign, trained = ("run", "tags", "IN", ["table1-digits"]), ("run", "jobType", "=", "train")
    for row, network, drawn in zip(
        rows,
        ("ResNet-18", "ShuffleNetV2-0.5", None, None),
        (curves("ResNet_18"), curves("ShuffleNetV2_0_5"), FINAL, throughput("images")),
        strict=True,
    ):
        (runset,) = row["runSets"]
        own = [("run", "tags", "IN", [network])] if network else []
        assert filters(runset) == [of_campaign, *own, trained]
        assert runset["grouping"] == [{"section": "config", "name": "table_cell.value"}]
        assert runset["project"] == {"name": "adarem", "entityName": "someone", "id": "1"}
        assert panels(row["panelBankSectionConfig"]["panels"]) == drawn
        assert [(p["layout"]["x"], p["layout"]["w"]) for p in row["panelBankSectionConfig"]["panels"]] == [
            (0, 8), (8, 8), (16, 8)
        ]  # fmt: skip
        cells = ["ResNet-18 · SGDM", "ResNet-18 · AdaRem-S", "ShuffleNetV2-0.5 · SGDM", "ShuffleNetV2-0.5 · AdaRem-S"]
        assert row["customRunColors"] == {
            f"{runset['id']}-config:table_cell.value:{cell}": draw.STYLES["sgdm" if "SGDM" in cell else "adarem_s"][0]
            for cell in cells
        }


def test_what_a_server_or_its_lack_refuses_is_one_line(tmp_path: Path, server: Server, adarem_command: Command) -> None:
    folder = campaign(tmp_path)
    results = f"--results-dir={report_on(folder, tmp_path, data='digits', scale=None)}"
    for arguments, environment, told in (
        (("workspace",), server.environment, "--entity: needed, your wandb user or team"),
        (("report", results, "--entity=someone"), {"HOME": str(tmp_path)}, "`wandb login` stores a key"),
        (("workspace", "--entity=someone"), {"HOME": str(tmp_path)}, "`wandb login` stores a key"),
        (("report", "--results-dir=/nowhere", "--entity=someone"), server.environment, "manifest.json: no such file"),
    ):
        done = adarem_command("wandb", arguments[0], str(folder), *arguments[1:], **environment)
        assert done.returncode == exitcodes.USER_ERROR, done.stderr
        assert told in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    server.projects = []
    done = adarem_command("wandb", "report", str(folder), results, "--entity=someone", **server.environment)
    assert done.returncode == exitcodes.USER_ERROR and "project 'someone/adarem' not found" in done.stderr
    assert not server.views


# the command line


def test_help_says_what_each_action_does(adarem_command: Command) -> None:
    text = " ".join(adarem_command("wandb", "--help").stdout.split())
    for action, does in (
        ("replay", "send runs again"), ("publish", "log the table and figures"), ("workspace", "save a workspace"),
        ("report", "save a report"),
    ):  # fmt: skip
        assert f"{action} {does}" in text
    assert "--mode" in adarem_command("wandb", "publish", "--help").stdout
    assert "--mode" not in adarem_command("wandb", "workspace", "--help").stdout
