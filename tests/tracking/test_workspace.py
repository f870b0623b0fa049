"""Saved workspaces and reports, as a server on this machine gets them."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adarem.plan.plan import make_plan
from adarem.report import make_report
from adarem.run import exitcodes
from adarem.run.catalog import OPTIMIZERS
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.reproduction import Standing
from adarem.run.sweep import SweepSpec
from adarem.tracking.replay import Replayed, replay
from adarem.tracking.workspace import Layout, read_layout, save_workspace
from tests.support.published import REHEARSAL, finished_sweep, report_on
from tests.support.sweeps import finish, write_grid
from tests.support.wandb_files import history, started, summary
from tests.support.wandb_server import Server

Command = Callable[..., subprocess.CompletedProcess[str]]


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
            data, scale = plan.spec.data, plan.spec.scale
            make_report(grid=plan.spec.name, runs_dir=tmp_path / "runs", results_dir=results, data=data, scale=scale)
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


def test_the_workspace_of_table_1_has_a_row_for_each_network(saved: Callable[..., dict[str, Any]]) -> None:
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
    assert sorted(section["customRunColors"].values()) == 6 * [OPTIMIZERS["sgdm"].color] + 6 * [
        OPTIMIZERS["adarem_s"].color
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
    assert replay(run.path.parent, "offline") == Replayed(1, ())
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
        OPTIMIZERS[o].color for o in ("sgdm", "adam", "adarem")
    )


def test_the_workspace_of_a_reproduction_carries_no_stamp(saved: Callable[..., dict[str, Any]]) -> None:
    view = saved("workspace", "grid=table2", "data.root=/data/imagenet", "wandb.entity=someone")
    assert view["displayName"] == "Table 2. Test accuracy of ResNet-18 under six optimizers (table2)"


def test_settings_next_to_the_grids_own_take_wandbs_colors(tmp_path: Path) -> None:
    make_plan(["grid=lambda", "data=digits", f"runs_dir={tmp_path}"]).write()
    assert read_layout(tmp_path / "lambda-digits").colors == {
        "ResNet-18 · AdaRem (λ 0.999 once an epoch)": OPTIMIZERS["adarem"].color
    }


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
    of_sweep, trained = ("run", "tags", "IN", ["table1-digits"]), ("run", "jobType", "=", "train")
    for row, network, drawn in zip(
        rows,
        ("ResNet-18", "ShuffleNetV2-0.5", None, None),
        (curves("ResNet_18"), curves("ShuffleNetV2_0_5"), FINAL, throughput("images")),
        strict=True,
    ):
        (runset,) = row["runSets"]
        own = [("run", "tags", "IN", [network])] if network else []
        assert filters(runset) == [of_sweep, *own, trained]
        assert runset["grouping"] == [{"section": "config", "name": "table_cell.value"}]
        assert runset["project"] == {"name": "adarem", "entityName": "someone", "id": "1"}
        assert panels(row["panelBankSectionConfig"]["panels"]) == drawn
        assert [(p["layout"]["x"], p["layout"]["w"]) for p in row["panelBankSectionConfig"]["panels"]] == [
            (0, 8), (8, 8), (16, 8)
        ]  # fmt: skip
        cells = ["ResNet-18 · SGDM", "ResNet-18 · AdaRem-S", "ShuffleNetV2-0.5 · SGDM", "ShuffleNetV2-0.5 · AdaRem-S"]
        assert row["customRunColors"] == {
            f"{runset['id']}-config:table_cell.value:{cell}": OPTIMIZERS["sgdm" if "SGDM" in cell else "adarem_s"].color
            for cell in cells
        }


def test_what_a_server_or_its_lack_refuses_is_one_line(tmp_path: Path, server: Server, adarem_command: Command) -> None:
    folder = finished_sweep(tmp_path)
    results = f"--results-dir={report_on(folder, tmp_path, 'digits')}"
    for arguments, environment, expected in (
        (("workspace",), server.environment, "--entity: missing; give your wandb user or team"),
        (("report", results, "--entity=someone"), {"HOME": str(tmp_path)}, "`wandb login` stores a key"),
        (("workspace", "--entity=someone"), {"HOME": str(tmp_path)}, "`wandb login` stores a key"),
        (("report", "--results-dir=/nowhere", "--entity=someone"), server.environment, "manifest.json: no such file"),
    ):
        done = adarem_command("wandb", arguments[0], str(folder), *arguments[1:], **environment)
        assert done.returncode == exitcodes.USER_ERROR, done.stderr
        assert expected in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    server.projects = []
    done = adarem_command("wandb", "report", str(folder), results, "--entity=someone", **server.environment)
    assert done.returncode == exitcodes.USER_ERROR and "project 'someone/adarem' not found" in done.stderr
    assert not server.views


def test_an_empty_sweep_is_a_mistake_in_one_line(tmp_path: Path) -> None:
    folder = write_grid(tmp_path / "runs")
    with pytest.raises(UserError, match="table2: no run there, or none whose config.yaml can be read"):
        save_workspace(folder, "me")


def test_a_study_has_its_own_title_and_no_stamp() -> None:
    spec = SweepSpec("mine", {"model": ("resnet18",), "optimizer": ("sgdm",)}, ("top1",), title="My table")
    layout = Layout("mine-digits", spec, [], Standing("study", "embedded digits, 10 epochs"))
    assert layout.title == "My table (mine-digits)"
