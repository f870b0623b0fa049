"""``adarem wandb workspace`` and ``report``: a sweep's runs laid out as the paper's figures, saved on wandb's server.

Built from the sweep's grid and configs alone; nothing is sent before ``save``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adarem.report.figures.style import of_optimizer
from adarem.run.config import RunConfig
from adarem.run.credentials import wandb_entity, wandb_project
from adarem.run.errors import UserError
from adarem.run.labels import heading, shortened, table_cell
from adarem.run.reproduction import Standing, standing_of_sweep
from adarem.run.sweep import SweepSpec, overrides_text, read_sweep
from adarem.tracking.naming import network_key, shown_tag, standing_of
from adarem.tracking.publish import published_figures, readable_runs, report_of

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import Report
    from wandb_workspaces.workspaces import Workspace

_FINAL_IMAGES = {"Final top-1 (%)": "top1", "Best top-1 (%)": "best_top1", "Final top-5 (%)": "top5"}
_FINAL_TEXT = {
    "Test perplexity": "perplexity",
    "Final validation perplexity": "val_perplexity",
    "Best validation perplexity": "best_val_perplexity",
}

_LONGEST_TITLE = 128  # characters that a saved report may have
_WIDTH = 24  # of a saved report, in columns


@dataclass(frozen=True)
class Layout:
    """What is laid out: a sweep's grid and the configs of its runs, in the table's order."""

    name: str  # of the sweep
    spec: SweepSpec
    configs: Sequence[RunConfig]
    standing: Standing

    @property
    def title(self) -> str:
        """``REHEARSAL of Table 2. Test accuracy of ResNet-18 under six optimizers (table2-digits)``."""
        text = self.spec.printed_title
        stamp = "REHEARSAL of " if self.standing.rehearsal else ""
        return f"{stamp}{text} ({self.name})"

    @property
    def project(self) -> str:
        return wandb_project(self.configs[0])

    @property
    def networks(self) -> dict[str, str]:
        """Label of every network to the beginning of its own keys."""
        return {c.model.label: network_key(c) for c in self.configs}

    @property
    def images(self) -> bool:
        return self.configs[0].data.kind == "images"

    @property
    def tracks_oscillation(self) -> bool:
        return any(c.train.oscillation for c in self.configs)

    @property
    def colors(self) -> dict[str, str]:
        """Cells in the colours of the report's figures; further settings of one optimizer take wandb's own."""
        first: dict[tuple[str, str], str] = {}
        for c in self.configs:
            first.setdefault((c.model.name, c.optimizer.name), table_cell(c, self.spec.labels))
        names = list(dict.fromkeys((*self.spec.optimizers, *(name for _, name in first))))
        return {cell: of_optimizer(name, names).color for (_, name), cell in first.items()}


@dataclass(frozen=True)
class PanelRow:
    """Panels next to each other."""

    name: str
    panels: list[Any]
    network: str | None = None  # label of the network whose runs alone it shows


def read_layout(sweep: Path) -> Layout:
    """Raises UserError when the folder is no sweep, or has no run whose config can be read."""
    spec, found = read_sweep(sweep), readable_runs(sweep)
    standings = [standing_of(r.run, r.config, spec) for r in found]

    def order(c: RunConfig) -> tuple[Any, ...]:
        return (
            *_position(spec.models, c.model.name),
            *_position(spec.optimizers, c.optimizer.name),
            overrides_text(c.overrides),
            c.seed,
        )

    configs = sorted((r.config for r in found), key=order)
    return Layout(sweep.name, spec, configs, standing_of_sweep(spec, sweep.name, standings))


def _position(axis: Sequence[str], name: str) -> tuple[int, str]:
    """Sorts by the place on an axis; values that are not on it come last."""
    return (axis.index(name) if name in axis else len(axis)), name


def workspace(layout: Layout, entity: str) -> "Workspace":
    """A view of the sweep's runs: the paper's figures, one line per cell of the table, averaged over its seeds."""
    _, ws = _packages()
    metrics = ["top1", "top5", "best_top1"] if layout.images else ["perplexity", "val_perplexity"]
    metrics += ["q_mean"] if layout.tracks_oscillation else []
    view: Workspace = ws.Workspace(
        entity=entity,
        project=layout.project,
        name=layout.title,
        sections=[
            ws.Section(
                name=row.name,
                panels=row.panels,
                is_open=True,
                layout_settings=ws.SectionLayoutSettings(columns=len(row.panels), rows=1),
            )
            for row in _rows(layout)
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=max(10, len(layout.configs))),
        runset_settings=ws.RunsetSettings(
            filters=_runs(layout),
            groupby=[ws.Config("table_cell")],
            group_colors=layout.colors,
            pinned_columns=[f"summary:{k}" for k in (*metrics, "status")],
        ),
    )
    return view


def report(layout: Layout, entity: str, figures: Sequence[str]) -> "Report":
    """A document: the published table and figures, then the workspace's rows.

    Args:
        figures: names of the published ones, in their order.
    """
    wr, _ = _packages()
    published = wr.Runset(entity, layout.project, "Report", filters=_runs(layout, kind="report"))
    blocks = [
        wr.H1("Table and figures"),
        wr.P(f"As the last `adarem wandb publish` of {layout.name} logged them."),
        wr.PanelGrid(
            runsets=[published],
            panels=[
                wr.WeavePanelSummaryTable(table_name="table", layout=wr.Layout(0, 0, _WIDTH, 10)),
                *(
                    wr.MediaBrowser(
                        title=name, media_keys=[f"figures/{name}"], layout=wr.Layout(0, 10 + 12 * i, _WIDTH, 12)
                    )
                    for i, name in enumerate(figures)
                ),
            ],
        ),
        wr.H1("Runs"),
        wr.P("A line is a cell of the table: the mean over its seeds, with a band of one standard deviation."),
    ]
    if layout.standing.rehearsal:
        blocks.insert(0, wr.CalloutBlock(f"REHEARSAL, not a reproduction. {layout.standing.reason}."))
    cell = wr.Config("table_cell")
    for row in _rows(layout):
        runs = wr.Runset(
            entity,
            layout.project,
            row.name,
            filters=_runs(layout, row.network),
            groupby=["config.table_cell"],
        )
        for i, panel in enumerate(row.panels):
            width = _WIDTH // len(row.panels)
            panel.layout = wr.Layout(i * width, 0, width, 8)
        colors = {wr.RunsetGroup(row.name, (wr.RunsetGroupKey(cell, k),)): v for k, v in layout.colors.items()}
        blocks += [wr.H2(row.name), wr.PanelGrid(runsets=[runs], panels=row.panels, custom_run_colors=colors)]
    view: Report = wr.Report(
        entity=entity,
        project=layout.project,
        title=shortened(layout.title, _LONGEST_TITLE),
        description=layout.standing.reason if layout.standing.kind in ("rehearsal", "study") else "",
        blocks=blocks,
        width="fluid",
    )
    return view


def _rows(layout: Layout) -> list[PanelRow]:
    """A row for each network as in Figures 4 and 5; final and best metrics; Q where it is tracked; throughput."""
    wr, _ = _packages()

    def curve(title: str, key: str, x: str = "epoch", log_y: bool = False) -> Any:
        return wr.LinePlot(
            title=title,
            x=x,
            y=[key],
            log_y=log_y,
            title_x={"epoch": "Epoch", "hours": "Hours of training, evaluation and checkpoints"}[x],
            smoothing_factor=0,
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            max_runs_to_show=max(10, len(layout.configs)),
        )

    def bars(titles: Mapping[str, str]) -> list[Any]:
        most = max(10, len(layout.configs))
        return [wr.BarPlot(title=title, metrics=[key], max_bars_to_show=most) for title, key in titles.items()]

    images, q = layout.images, layout.tracks_oscillation
    what, key = ("Test error (%)", "test_error") if images else ("Validation perplexity", "val_perplexity")
    figure = heading(layout.spec.figure or "")
    of_paper = f" ({figure})" if figure.startswith("Figure ") and "q_mean" not in layout.spec.metrics else ""
    rows = [
        PanelRow(
            f"{label}{of_paper}",
            [
                curve("Train loss", f"{own}/train_loss", log_y=True),
                curve(what, f"{own}/{key}", log_y=not images),
                curve(f"{what} against time", f"{own}/{key}", "hours", log_y=not images),
            ],
            label,
        )
        for label, own in layout.networks.items()
    ]
    if q:
        mean = curve("Q, mean of l / d (all that moved)", "oscillation/q_mean")
        median = curve("Median of l / d (with a gradient)", "oscillation/q_median_with_gradient")
        rows.append(PanelRow("Oscillation (Figure 2)", [mean, median]))
    final = _FINAL_IMAGES if images else _FINAL_TEXT
    last = {"Q in the last window": "q_mean"} if q else {}
    rows.append(PanelRow("Final and best", bars(final | last)))
    unit = "images" if images else "tokens"
    rate = curve(f"{unit.title()} a second", f"train/{unit}_per_s")
    wait = curve("Share of training spent waiting for data", "train/data_wait")
    rows.append(PanelRow("Throughput", [rate, wait, curve("Learning rate", "train/lr")]))
    return rows


def _runs(layout: Layout, network: str | None = None, kind: Literal["train", "report"] = "train") -> Any:
    """A filter for the sweep's runs, those of one network where it is named. By tags: wandb filters any tag's text."""
    _, ws = _packages()
    tags = [layout.name, *([network] if network else [])]
    return ws.And(*(ws.Tags().isin([shown_tag(t)]) for t in tags), ws.Metric("JobType") == kind)


def save_workspace(sweep: Path, entity: str | None) -> str:
    """Sends a sweep's workspace to the server; returns its address.

    Args:
        entity: wandb user or team, in place of the config's.

    Raises:
        UserError: there is no entity, or the server cannot be reached or refuses.
    """
    layout = read_layout(sweep)
    return _save(workspace(layout, _entity(layout, entity)))


def save_report(sweep: Path, entity: str | None, results_dir: Path) -> str:
    """Sends a sweep's report to the server; returns its address.

    Args:
        entity: wandb user or team, in place of the config's.
        results_dir: where `adarem report` wrote the figures, whose names the report refers to.

    Raises:
        UserError: there is no entity, there are no figures, or the server cannot be reached or refuses.
    """
    layout = read_layout(sweep)
    owner = _entity(layout, entity)
    figures = published_figures(sweep, results_dir, report_of(sweep, results_dir))
    return _save(report(layout, owner, [f.stem for f in figures]))


def _entity(layout: Layout, asked: str | None) -> str:
    owner = asked or wandb_entity(layout.configs[0])
    if not owner:
        raise UserError(
            "--entity: missing; give your wandb user or team, or set WANDB_ENTITY (or wandb.entity in a plan)"
        )
    return owner


def _save(view: Any) -> str:
    try:
        return str(view.save().url)
    except Exception as e:  # of wandb, of the packages that it uses, and bare ones of wandb-workspaces
        first = next(iter(str(e).splitlines()), type(e).__name__).rstrip(".")
        raise UserError(f"wandb: {first}; `wandb login` stores a key, and the runs must be online first") from None


def _packages() -> tuple[Any, Any]:
    """wandb_workspaces' modules of reports and of workspaces. Raises UserError where it is not installed."""
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise UserError("wandb-workspaces: not installed; run `pip install 'adarem[workspaces]'`") from None
    return wr, ws
