"""What a run is called in wandb: id, name, group, tags, stamp, and the keys of its network's own curves."""

import hashlib
import re
from dataclasses import dataclass

from adarem.run.batch_norm import recorded_numbers
from adarem.run.config import RunConfig, to_dict
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.identity import config_hash
from adarem.run.labels import shortened, table_cell
from adarem.run.records import count
from adarem.run.reproduction import Kind, Standing, seen_by, standing_of_run
from adarem.run.sweep import SweepLabels, SweepSpec, read_sweep

_LONGEST_NAME, _LONGEST_TAG = 128, 64  # characters that wandb's server takes


@dataclass(frozen=True)
class Description:
    """How wandb shows a run."""

    name: str  # cell of the table and seed
    group: str  # sweep and cell of the table: what is averaged over seeds
    tags: tuple[str, ...]
    notes: str | None  # why it is no reproduction
    config: dict[str, object]


def run_id(run: RunDir, config: RunConfig) -> str:
    """The same over attempts, requeues and machines: one wandb run for one run of a sweep."""
    return hashlib.sha256(f"{run.path.parent.name}/{config.run_name}/{config_hash(config)}".encode()).hexdigest()[:12]


def report_id(sweep: str) -> str:
    """Id of the wandb run that holds the table and figures of a sweep."""
    return hashlib.sha256(f"{sweep}/report".encode()).hexdigest()[:12]


def describe(run: RunDir, config: RunConfig) -> Description:
    """Names the run after its cell of the table, with the grid's own labels where grid.yaml can be read."""
    sweep = run.path.parent.name
    try:
        spec = read_sweep(run.path.parent)
    except UserError:
        spec = None
    cell, seed = table_cell(config, spec.labels if spec else SweepLabels()), f" · seed {config.seed}"
    tags = [sweep, config.model.label, config.optimizer.label, config.data.label]
    standing = standing_of(run, config, spec)
    return Description(
        name=shortened(cell, _LONGEST_NAME - len(seed)) + seed,
        group=shown_name(f"{sweep} · {cell}"),
        tags=(*map(shown_tag, tags), *stamp_tags(standing.kind)),
        notes=stamp_notes(standing.kind, standing.reason),
        config={**to_dict(config), "campaign": sweep, "table_cell": cell},
    )


def standing_of(run: RunDir, config: RunConfig, spec: SweepSpec | None) -> Standing:
    """What the run counts as: by its config and, as far as it has recorded them, by the data that it saw."""
    try:
        result = run.result() or {}
    except UserError:
        result = {}
    unit = "images" if config.data.kind == "images" else "tokens"
    metrics = run.metrics()
    evaluated = [n for r in metrics if r["split"] == config.data.evaluated_on and (n := count(r, unit)) is not None]
    return standing_of_run(config, spec, seen_by(config, result, evaluated, recorded_numbers(config, metrics)))


def stamp_tags(kind: Kind) -> tuple[str, ...]:
    """The tag of whatever is no reproduction: ``rehearsal``, ``variation`` or ``study``."""
    return () if kind == "reproduction" else (kind,)


def stamp_notes(kind: Kind, reason: str) -> str | None:
    """The reason for the tag, in the notes."""
    if kind == "reproduction":
        return None
    return f"REHEARSAL: {reason}" if kind == "rehearsal" else f"{kind}: {reason}"


def shown_name(text: str) -> str:
    """A name or group of the length that wandb takes."""
    return shortened(text, _LONGEST_NAME)


def shown_tag(text: str) -> str:
    """A tag of the length that wandb takes."""
    return shortened(text, _LONGEST_TAG)


def network_key(config: RunConfig) -> str:
    """What the keys of a network's own curves begin with: ``MobileNetV2_0_5``.

    A workspace's panel shows every run that has its key, so a row for each network needs keys for each network. wandb
    sorts and filters by letters, digits and underscores.
    """
    return re.sub(r"\W+", "_", config.model.label)
