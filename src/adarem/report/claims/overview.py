"""All claims of the paper, judged by all sweeps that are there, as Markdown and as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from adarem.report.claims.entries import Claim, Contradiction
from adarem.report.claims.judge import RULE, Judged, Status, judge
from adarem.report.load import Sweep
from adarem.run.frozen_claims import Frozen, changed, frozen

CSV_COLUMNS = (
    "id", "status", "claim", "where", "grid", "metric", "relation", "evidence", "runs", "in_rehearsal"
)  # fmt: skip
STATUSES: tuple[Status, ...] = ("supported", "exceeded", "contradicted", "undecided", "not run")


CONTRADICTIONS = "Where the paper contradicts itself"


@dataclass(frozen=True)
class Overview:
    judged: Sequence[Judged]  # in the order of claims.yaml
    rehearsals: Sequence[str]  # names of the sweeps that claims compare and that are no evidence
    fixed: Sequence[
        str
    ] = ()  # of each sweep that claims compare: which hash they had when it was planned, what changed
    contradictions: Sequence[Contradiction] = ()  # of the paper with itself
    of_paper: bool = True  # False: they are of studies alone

    @property
    def heading(self) -> str:
        return "The paper's claims" if self.of_paper else "Claims"


def judge_all(
    claims: Sequence[Claim],
    sweeps: Iterable[Sweep],
    now: Frozen | None = None,
    contradictions: Sequence[Contradiction] = (),
) -> Overview:
    """Every claim judged by the reproductions, and next to it what the same rule makes of rehearsals.

    Args:
        claims: of claims.yaml.
        sweeps: in the order of ``Sweeps.names``. Of rehearsals on several data sets, the first that has something to
            say of a claim does.
        contradictions: of the paper with itself, for the reader.
        now: the hashes of claims.yaml, against which those are held that plan left in the sweeps.
    """
    sweeps, grids = list(sweeps), grids_of(claims)
    reproductions: dict[str, Sweep] = {}
    rehearsals: dict[str, dict[str, Sweep]] = {}  # by what follows the grid in their names: data and scale
    for sweep in sweeps:
        grid = sweep.spec.name
        if grid not in grids:
            continue
        if sweep.standing.kind in ("reproduction", "study"):  # a claim on a study is its author's
            of_paper = [r for r in sweep.runs if r.standing.kind != "variation"]
            reproductions.setdefault(grid, replace(sweep, runs=of_paper))
        elif sweep.standing.kind == "rehearsal":
            rehearsals.setdefault(sweep.name.removeprefix(grid), {})[grid] = sweep
    judged = []
    for claim in claims:
        rehearsed: list[Status] = [judge(claim, of_data).status for of_data in rehearsals.values()]
        first: Status = next((status for status in rehearsed if status != "not run"), "not run")
        judged.append(replace(judge(claim, reproductions), rehearsed=first))
    about_paper = not sweeps or any(sweep.standing.kind != "study" for sweep in sweeps)
    rehearsed_on = sorted(s.name for of_data in rehearsals.values() for s in of_data.values())
    compared = [*reproductions.values(), *(s for of_data in rehearsals.values() for s in of_data.values())]
    fixed = [_fixed(sweep, now) for sweep in compared] if now is not None else []
    return Overview(judged, rehearsed_on, fixed, contradictions if about_paper else (), about_paper)


def _fixed(sweep: Sweep, now: Frozen) -> str:
    """Whether a sweep's claims were fixed before its runs, and each that is not what it was then."""
    before = frozen(sweep.folder)
    if before is None:
        return f"{sweep.name}: no hash of the claims was kept before its runs began"
    if names := changed(before, now):
        return f"{sweep.name}: planned with claims {before.hash}; changed since: {', '.join(names)}"
    return f"{sweep.name}: planned with claims {before.hash}, which are those of now"


def grids_of(claims: Sequence[Claim]) -> set[str]:
    """The grids that the claims compare."""
    return {c.grid for c in claims} | {c.against_grid for c in claims if c.against_grid}


def in_rehearsal(j: Judged) -> str:
    """What a rehearsal comes to, always in brackets and under that word."""
    return f"(REHEARSAL: {j.rehearsed})" if j.rehearsed != "not run" else "—"


def summary(judged: Sequence[Judged]) -> str:
    """``1 supported, 0 contradicted, 2 undecided, 33 not run``."""
    counts = {status: sum(j.status == status for j in judged) for status in STATUSES}
    return ", ".join(f"{n} {status}" for status, n in counts.items())


def markdown(overview: Overview) -> str:
    """The claims with their verdicts, the rule, and the evidence."""
    judged = overview.judged
    out = [f"# {overview.heading}", "", f"{len(judged)} claims: {summary(judged)}.", ""]
    if overview.rehearsals:
        out += [f"Rehearsals are there and are no evidence: {', '.join(overview.rehearsals)}.", ""]
    if overview.fixed:
        out += ["Claims and margins are fixed when a sweep is planned, before its first run:", ""]
        out += [*(f"- {line}" for line in overview.fixed), ""]
    out += ["| Claim | Where in the paper | Status | The same rule on rehearsals, no evidence |"]
    out += ["| --- | --- | --- | --- |"]
    out += [f"| {j.claim.sentence} | {j.claim.where} | **{j.status}** | {in_rehearsal(j)} |" for j in judged]
    out += ["", RULE]
    if overview.contradictions:
        out += ["", f"## {CONTRADICTIONS}", "", *(f"- {c.text}" for c in overview.contradictions)]
    for j in judged:
        if j.evidence:
            out += ["", f"## {j.claim.id}: {j.status}", "", j.claim.sentence, "", *(f"- {line}" for line in j.evidence)]
            out += ["", f"Runs: {', '.join(j.runs)}"]
    return "\n".join(out) + "\n"


def to_csv(judged: Sequence[Judged]) -> str:
    """One row per claim."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for j in judged:
        c = j.claim
        row = [c.id, j.status, c.sentence, c.where, c.grid, c.metric, c.relation]
        writer.writerow([*row, " | ".join(j.evidence), " ".join(j.runs), in_rehearsal(j)])
    return text.getvalue()
