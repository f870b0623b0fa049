"""A saved wandb workspace and a saved wandb report of one campaign, laid out as the paper's figures.

Built from the campaign's grid and configs alone; nothing is sent before ``save``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adarem.run.config import RunConfig
from adarem.run.errors import UserError
from adarem.run.labels import heading, shortened, table_cell
from adarem.run.schema import variant
from adarem.run.sweep import read_campaign
from adarem.tracking.publish import configs_in, published, published_figures
from adarem.tracking.sync import network_key, shown_tag

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

# An optimizer's colour in the report's figures.
COLORS = {
    "sgdm": "#000000",
    "adam": "#E69F00",
    "adamw": "#56B4E9",
    "adabound": "#009E73",
    "rmsprop": "#CC79A7",
    "adarem": "#D55E00",
    "adarem_s": "#0072B2",
    "sgd": "#7F7F7F",
}

_FINAL_IMAGES = {"Final top-1 (%)": "top1", "Best top-1 (%)": "best_top1", "Final top-5 (%)": "top5"}
_FINAL_TEXT = {
    "Test perplexity": "perplexity",
    "Final validation perplexity": "val_perplexity",
    "Best validation perplexity": "best_val_perplexity",
}

_LONGEST_TITLE = 128  # characters that a saved report may have
_WIDTH = 24  # of a saved report, in columns


@dataclass(frozen=True)
class Campaign:
    """What is laid out: the grid and the configs of its runs, in the table's order."""

    name: str
    grid: dict[str, Any]
    configs: list[RunConfig]

    @property
    def title(self) -> str:
        """``REHEARSAL of Table 2. Test accuracy of ResNet-18 under six optimizers (table2-digits)``."""
        text = f"{self.grid.get('heading') or heading(self.grid['name'])}. {self.grid.get('title', '')}".rstrip(". ")
        return f"{'REHEARSAL of ' if self.rehearsal else ''}{text} ({self.name})"

    @property
    def rehearsal(self) -> str | None:
        return next((c.rehearsal for c in self.configs if c.rehearsal), None)

    @property
    def project(self) -> str:
        return self.configs[0].wandb.project

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
            first.setdefault((c.model.name, c.optimizer.name), table_cell(c, self.grid))
        return {cell: COLORS[optimizer] for (_, optimizer), cell in first.items() if optimizer in COLORS}


@dataclass(frozen=True)
class Row:
    """Panels side by side."""

    name: str
    panels: list[Any]
    network: str | None = None  # label of the one that they are of


def read(folder: Path) -> Campaign:
    """Raises UserError when the folder is no campaign, or has no run whose config can be read."""
    grid = read_campaign(folder)
    models, optimizers = ((grid.get("axes") or {}).get(axis, []) for axis in ("model", "optimizer"))

    def place(c: RunConfig) -> tuple[Any, ...]:
        return (*_place(models, c.model.name), *_place(optimizers, c.optimizer.name), variant(c.overrides), c.seed)

    return Campaign(folder.name, grid, sorted(configs_in(folder), key=place))


def _place(axis: list[str], name: str) -> tuple[int, str]:
    """Where a value of an axis stands, those off the plan at the end."""
    return (axis.index(name) if name in axis else len(axis)), name


def workspace(campaign: Campaign, entity: str) -> "ws.Workspace":
    """A view of the campaign's runs: the paper's figures, a line a cell of the table, averaged over its seeds."""
    _, ws = _packages()
    figures = ["top1", "top5", "best_top1"] if campaign.images else ["perplexity", "val_perplexity"]
    figures += ["q_mean"] if campaign.tracks_oscillation else []
    return ws.Workspace(
        entity=entity,
        project=campaign.project,
        name=campaign.title,
        sections=[
            ws.Section(
                name=row.name,
                panels=row.panels,
                is_open=True,
                layout_settings=ws.SectionLayoutSettings(columns=len(row.panels), rows=1),
            )
            for row in _rows(campaign)
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=max(10, len(campaign.configs))),
        runset_settings=ws.RunsetSettings(
            filters=_runs(campaign),
            groupby=[ws.Config("table_cell")],
            group_colors=dict(campaign.colors),
            pinned_columns=[f"summary:{k}" for k in (*figures, "status")],
        ),
    )


def report(campaign: Campaign, entity: str, figures: list[str]) -> "wr.Report":
    """A document: the published table and figures, then the workspace's rows.

    Args:
        figures: names of the published ones, in their order.
    """
    wr, ws = _packages()
    published = wr.Runset(entity, campaign.project, "Report", filters=_runs(campaign, kind="report"))
    blocks = [
        wr.H1("Table and figures"),
        wr.P(f"As the last `adarem wandb publish` of {campaign.name} logged them."),
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
    if campaign.rehearsal:
        blocks.insert(0, wr.CalloutBlock(f"REHEARSAL, not a reproduction. {campaign.rehearsal}."))
    cell = wr.Config("table_cell")
    for row in _rows(campaign):
        runs = wr.Runset(
            entity,
            campaign.project,
            row.name,
            filters=_runs(campaign, row.network),
            groupby=["config.table_cell"],
        )
        for i, panel in enumerate(row.panels):
            width = _WIDTH // len(row.panels)
            panel.layout = wr.Layout(i * width, 0, width, 8)
        colors = {wr.RunsetGroup(row.name, (wr.RunsetGroupKey(cell, k),)): v for k, v in campaign.colors.items()}
        blocks += [wr.H2(row.name), wr.PanelGrid(runsets=[runs], panels=row.panels, custom_run_colors=colors)]
    return wr.Report(
        entity=entity,
        project=campaign.project,
        title=shortened(campaign.title, _LONGEST_TITLE),
        description=campaign.rehearsal or "",
        blocks=blocks,
        width="fluid",
    )


def _rows(campaign: Campaign) -> list[Row]:
    """A row a network as in Figures 4 and 5; final and best figures; Q where it is tracked; throughput."""
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
            max_runs_to_show=max(10, len(campaign.configs)),
        )

    def bars(title: str, key: str) -> Any:
        return wr.BarPlot(title=title, metrics=[key], max_bars_to_show=max(10, len(campaign.configs)))

    images, q = campaign.images, campaign.tracks_oscillation
    what, key, log = (
        ("Test error (%)", "test_error", False) if images else ("Validation perplexity", "val_perplexity", True)
    )
    figure = heading(campaign.grid.get("figure") or "")
    of_paper = f" ({figure})" if figure.startswith("Figure ") and "q_mean" not in campaign.grid["metrics"] else ""
    rows = [
        Row(
            f"{label}{of_paper}",
            [
                curve("Train loss", f"{own}/train_loss", log_y=True),
                curve(what, f"{own}/{key}", log_y=not images),
                curve(f"{what} against time", f"{own}/{key}", "hours", log_y=not images),
            ],
            label,
        )
        for label, own in campaign.networks.items()
    ]
    if q:
        mean = curve("Q, mean of l / d (all that moved)", "oscillation/q_mean")
        median = curve("Median of l / d (with a gradient)", "oscillation/q_median_with_gradient")
        rows.append(Row("Oscillation (Figure 2)", [mean, median]))
    final = _FINAL_IMAGES if images else _FINAL_TEXT
    last = {"Q in the last window": "q_mean"} if q else {}
    rows.append(Row("Final and best", [bars(title, name) for title, name in (final | last).items()]))
    unit = "images" if images else "tokens"
    rate = curve(f"{unit.title()} a second", f"train/{unit}_per_s")
    wait = curve("Share of training spent waiting for data", "train/data_wait")
    rows.append(Row("Throughput", [rate, wait, curve("Learning rate", "train/lr")]))
    return rows


def _runs(campaign: Campaign, network: str | None = None, kind: str = "train") -> Any:
    """The campaign's runs, those of one network where it is named; by tags, which wandb filters whatever is in them."""
    _, ws = _packages()
    tags = [campaign.name, *([network] if network else [])]
    return ws.And(*(ws.Tags().isin([shown_tag(t)]) for t in tags), ws.Metric("JobType") == kind)


def save(folder: Path, kind: str, entity: str | None, results_dir: Path | None = None) -> str:
    """Sends a campaign's workspace or report to the server; returns its address.

    Args:
        kind: workspace or report.
        entity: wandb user or team, in place of the config's.
        results_dir: where a report's figures lie, whose names it needs.

    Raises:
        UserError: nobody to save it for, no figures yet, or the server cannot be reached or refuses.
    """
    campaign = read(folder)
    owner = entity or campaign.configs[0].wandb.entity
    if not owner:
        raise UserError("--entity: needed, your wandb user or team; or set wandb.entity when the grid is planned")
    if kind == "report":
        assert results_dir is not None
        figures = published_figures(folder, results_dir, published(folder, results_dir))
        view = report(campaign, owner, [f.stem for f in figures])
    else:
        view = workspace(campaign, owner)
    try:
        return view.save().url
    except Exception as e:  # of wandb, of its packages below, and bare ones of wandb-workspaces
        first = next(iter(str(e).splitlines()), type(e).__name__).rstrip(".")
        raise UserError(f"wandb: {first}; `wandb login` stores a key, and the runs must be online first") from None


def _packages() -> tuple[Any, Any]:
    """wandb_workspaces' reports and workspaces. Raises UserError where it is not installed."""
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise UserError("wandb-workspaces is not installed; .venv/bin/pip install wandb-workspaces") from None
    return wr, ws
