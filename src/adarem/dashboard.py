"""What wandb shows beyond single runs: runs replayed from their directories, the final table and figures, a workspace.

Everything here is a copy of what stands in run directories and ``results/``.
"""

import csv
from pathlib import Path
from typing import Any

from adarem.campaign import read_campaign, runs_in
from adarem.errors import UserError
from adarem.mirror import mirror, wandb_mode


def replay(folder: Path, mode: str | None) -> int:
    """Builds a wandb run from every run directory of a campaign that has begun; returns their number.

    An online run that exists already is added to, under the same id; an offline one is written anew.
    """
    begun = [run for run in runs_in(folder) if run.metrics()]
    if not begun:
        raise UserError(f"{folder}: no run there has finished an epoch, so there is nothing to replay")
    import wandb

    for run in begun:
        mirror(run, follow=False, mode=mode)
    wandb.teardown()  # or the last run's end may not be on disk yet
    return len(begun)


def publish(folder: Path, results_dir: Path, mode: str | None) -> None:
    """Logs a campaign's table and figures, as ``adarem report`` wrote them, as one wandb run of job type ``report``.

    Raises:
        UserError: no report was made yet.
    """
    import wandb

    grid = read_campaign(folder)
    config = runs_in(folder)[0].config()
    table_file = results_dir / "tables" / f"{grid['name']}.csv"
    if not table_file.is_file():
        raise UserError(f"{table_file}: no such file; `adarem report grid={grid['name']}` writes it")
    with open(table_file, newline="") as f:
        rows = [row for row in csv.reader(f) if row and not row[0].startswith("#")]
    session = wandb.init(
        project=config.wandb.project,
        entity=config.wandb.entity,
        group=folder.name,
        name=f"report {grid['name']}",
        job_type="report",
        tags=[grid["name"], *(["rehearsal"] if config.rehearsal else [])],
        dir=str(folder),
        mode=mode or wandb_mode(config),
        settings=wandb.Settings(silent=True, console="off"),
    )
    logged: dict[str, Any] = {"table": wandb.Table(columns=rows[0], data=rows[1:])}
    drawn = [grid.get("figure"), *(f"{grid['name']}-{kind}" for kind in ("curves", "time"))]
    drawn += ["figure1", "figure1-parameters"] if grid["name"] == "figure2" else []
    for figure in sorted((results_dir / "figures").glob("*.png")):
        if figure.stem in drawn:
            logged[f"figures/{figure.stem}"] = wandb.Image(str(figure))
    session.log(logged)
    session.finish()
    wandb.teardown()


def workspace(folder: Path, entity: str) -> Any:
    """A saved view with the paper's figures laid out, not yet saved: ``.save()`` sends it to the server.

    Raises:
        UserError: the package wandb-workspaces is missing.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise UserError("wandb-workspaces is not installed; .venv/bin/pip install wandb-workspaces") from None

    grid = read_campaign(folder)
    config = runs_in(folder)[0].config()

    def curve(title: str, metric: str, **settings: Any) -> Any:
        return panels.LinePlot(title=title, x="epoch", y=[metric], smoothing_factor=0, **settings)

    curves = [curve("Train loss", "train/loss"), curve("Test top-1 accuracy (%)", "val/top1")]
    sections = [
        ws.Section(name=f"{grid['name']}: {grid['title']}", panels=curves, is_open=True),
        ws.Section(
            name="Final and best",
            panels=[
                panels.BarPlot(title="Final top-1 (%)", metrics=["top1"]),
                panels.BarPlot(title="Best top-1 (%)", metrics=["best_top1"]),
            ],
            is_open=True,
        ),
        ws.Section(
            name="Oscillation (Figure 2)",
            panels=[curve("Q", "oscillation/q_mean", log_y=True), curve("Median q", "oscillation/q_median")],
        ),
        ws.Section(
            name="Throughput",
            panels=[
                curve("Images/s", "train/images_per_s"),
                curve("Share of time without a batch", "train/data_wait"),
                curve("Learning rate", "train/lr"),
            ],
        ),
    ]
    name = ("REHEARSAL of " if config.rehearsal else "") + grid["name"]
    return ws.Workspace(
        entity=entity,
        project=config.wandb.project,
        name=name,
        sections=sections,
        runset_settings=ws.RunsetSettings(filters=ws.And(ws.Metric("Group") == folder.name)),
    )
