"""`adarem report`: one campaign in, every output file out."""

import csv
from dataclasses import replace
from pathlib import Path

from adarem.errors import UserError
from adarem.files import write_atomically
from adarem.report import claims, collect, figures, html, latex, runs_csv, tables, times
from adarem.report.cells import Table, build, read_paper
from adarem.report.collect import Campaign

TIMES = "-time"  # ends the name of a table's time to accuracy, as of its figure


def load(folder: Path, results_dir: Path, note: str = "") -> Table:
    campaign = collect.read_runs(folder)
    return build(campaign, read_paper(campaign.grid.get("paper"), results_dir), note)


def refuse_to_overwrite(table: Table, results_dir: Path) -> None:
    """A rehearsal never takes the place of a reproduction's numbers.

    Raises:
        UserError: results/tables/<grid>.csv holds a figure that was reproduced.
    """
    path = results_dir / "tables" / f"{table.name}.csv"
    if table.campaign.rehearsal is None or not path.exists():
        return
    with open(path, newline="") as f:
        if any(row.get("ours") and not row.get("rehearsal") for row in csv.DictReader(f)):
            raise UserError(
                f"{path}: holds a reproduction, which the rehearsal {table.campaign.name} must not overwrite; "
                "give another place with results_dir=results-rehearsal"
            )


def make(*, grid: str, runs_dir: Path, results_dir: Path, data: str | None, scale: str | None) -> str:
    """See adarem.report.make_report."""
    folder, note = collect.find_campaign(grid, runs_dir, data, scale)
    table = load(folder, results_dir, note)
    refuse_to_overwrite(table, results_dir)
    runs_csv.update_runs_csv(results_dir / "runs.csv", table.campaign, runs_dir)
    written = [results_dir / "runs.csv"]
    texts = {".md": tables.markdown(table), ".csv": tables.to_csv(table), ".tex": latex.latex(table)}
    if not figures.is_q(table):
        texts |= {f"{TIMES}.md": times.markdown(table), f"{TIMES}.csv": times.to_csv(table)}
    for ending, text in texts.items():
        path = results_dir / "tables" / f"{table.name}{ending}"
        write_atomically(path, text)
        written.append(path)
    written += figures.write_figures(table, results_dir / "figures")
    judged, told = write_claims(table.campaign, runs_dir, results_dir, written)
    written.append(write_page(table, judged, runs_dir, results_dir))
    return f"{tables.screen(table)}{told}\nWritten:\n" + "".join(f"  {p}\n" for p in written)


def judge_claims(current: Campaign, runs_dir: Path, results_dir: Path) -> tuple[list[claims.Judged], list[str]]:
    """Every claim judged by the reproductions under ``runs_dir``, beside it what the same rule makes of rehearsals,
    and the names of these.

    It depends on the runs there are and not on ``current``, which only need not be read again. Of rehearsals on several
    data sets the first by name, short ones before long ones, that has something to say of a claim does.
    """
    ledger = claims.read_claims(results_dir)
    grids = {c.grid for c in ledger} | {c.against_grid for c in ledger if c.against_grid}
    genuine: dict[str, Campaign] = {}
    rehearsed: dict[str, dict[str, Campaign]] = {}  # by what follows the grid in their names: data and scale
    for folder in sorted((p.parent for p in runs_dir.glob("*/grid.yaml")), key=lambda p: (len(p.name), p.name)):
        grid = max((g for g in grids if f"{folder.name}-".startswith(f"{g}-")), key=len, default=None)
        if grid is None:
            continue
        campaign = current if folder.name == current.name else collect.read_runs(folder)
        if campaign.rehearsal is None:
            genuine.setdefault(grid, campaign)
        else:
            rehearsed.setdefault(folder.name.removeprefix(grid), {})[grid] = campaign
    judged = []
    for claim in ledger:
        told = [s for of in rehearsed.values() if (s := claims.judge(claim, of).status) != "not run"]
        judged.append(replace(claims.judge(claim, genuine), rehearsed=told[0] if told else "not run"))
    return judged, sorted(c.name for of in rehearsed.values() for c in of.values())


def write_page(current: Table, judged: list[claims.Judged], runs_dir: Path, results_dir: Path) -> Path:
    """report.html: every table of ``results_dir`` whose runs are here."""
    sections, elsewhere = [], []
    for path in sorted(p for p in (results_dir / "tables").glob("*.csv") if not p.stem.endswith(TIMES)):
        with open(path, newline="") as f:
            first = next(csv.DictReader(f), {})
        name = first.get("campaign", "")
        if name == current.campaign.name:
            table = current
        elif name and (runs_dir / name / "grid.yaml").exists():
            table = load(runs_dir / name, results_dir)
        else:
            elsewhere.append(path.stem)
            continue
        sections.append((table, figures.names(table)))
    sections.sort(key=lambda s: s[0].campaign.rehearsal is not None)  # reproductions first
    path = results_dir / "report.html"
    write_atomically(path, html.render(sections, judged, elsewhere, results_dir))
    return path


def write_claims(
    current: Campaign, runs_dir: Path, results_dir: Path, written: list[Path]
) -> tuple[list[claims.Judged], str]:
    """claims.md and claims.csv; the ledger and its line for the screen.

    A rehearsal leaves a ledger alone that rests on reproductions whose runs are not here.
    """
    judged, rehearsed = judge_claims(current, runs_dir, results_dir)
    path = results_dir / "claims.csv"
    if current.rehearsal and path.exists() and all(j.status == "not run" for j in judged):
        with open(path, newline="") as f:
            if any(row["status"] != "not run" for row in csv.DictReader(f)):
                return judged, f"Claims: {path} rests on runs that are not under {runs_dir}; left as it is.\n"
    write_atomically(path, claims.to_csv(judged))
    write_atomically(path.with_suffix(".md"), claims.markdown(judged, rehearsed))
    written += [path, path.with_suffix(".md")]
    return judged, f"Claims of the paper: {claims.summary(judged)} (see {path.with_suffix('.md')}).\n"
