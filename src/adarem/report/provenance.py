"""Where a table's numbers come from, and whether its cells may be compared."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from adarem.report.labels import labels
from adarem.report.load import Run, Sweep, fingerprints
from adarem.run.build import later_keys
from adarem.run.config import DataConfig, RunConfig
from adarem.run.records import JsonRecord, count, section, text
from adarem.run.schedules import schedule_text, schedules
from adarem.run.sweep import run_name

# Settings that a grid varies on purpose, or that name a run.
_AXES = ("seed", "cell", "grid", "overrides.")
# Settings of later versions are in a run's config where they are set.
_LATER: Mapping[str, object] = dict.fromkeys(later_keys(RunConfig), "its default")
SPLITS = (("train", "training"), ("holdout", "held-out training"), ("val", "validation"), ("test", "test"))
NAMED = 3  # runs that a line spells out


class Valued(NamedTuple):
    """A value, and the run that has it."""

    value: object
    run: str


class Fact(NamedTuple):
    """One line of a table's header."""

    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.what}: {self.text}"


def _groups(values: Iterable[Valued]) -> dict[str, list[str]]:
    """Runs by value, each run once; unknown values left out."""
    groups: dict[str, dict[str, None]] = {}
    for value, run in values:
        if value not in (None, ""):
            groups.setdefault(str(value), {})[run] = None
    return {value: list(runs) for value, runs in groups.items()}


def _spell(groups: Mapping[str, Sequence[str]]) -> str:
    """``3f2a (5 runs), 9c1d (resnet18-adam-s0)``: the largest group first, small ones by name."""
    ordered = sorted(groups.items(), key=lambda g: -len(g[1]))
    return ", ".join(f"{value} ({_names(runs)})" for value, runs in ordered)


def _names(runs: Sequence[str]) -> str:
    return ", ".join(runs) if len(runs) <= NAMED else f"{len(runs)} runs"


class Commit(NamedTuple):
    name: str  # nine letters; "adarem 0.1.0" for an installed version, which has no commit
    dirty: bool

    def __str__(self) -> str:
        return f"{self.name} (dirty)" if self.dirty else self.name


def commits_of_attempts(run: Run) -> list[Commit]:
    return [commit for attempt in run.attempts if (commit := _commit(attempt))]


def commits(run: Run) -> list[Commit]:
    """Of every attempt, and of the result."""
    return [*commits_of_attempts(run), *filter(None, [_commit(run.result)])]


def _commit(record: JsonRecord) -> Commit | None:
    if record.get("commit"):
        return Commit(text(record, "commit")[:9], bool(record.get("dirty")))
    version = section(record, "versions").get("adarem")
    return Commit(f"adarem {version}", False) if version else None


def _distinct(runs: Sequence[Run], key: str) -> list[str]:
    return list(dict.fromkeys(text(r.result, key) for r in runs if r.result.get(key) is not None))


def facts(sweep: Sweep) -> list[Fact]:
    """The header of a table."""
    runs = sweep.runs
    if not runs:
        return []
    done = [r for r in runs if r.status == "done"]
    c = runs[0].config
    scales = dict.fromkeys(
        f"{x.epochs} epochs, global batch {x.global_batch_size}" for x in (r.config.scale for r in runs)
    )
    common, own = schedules(r.config for r in runs)
    made_by = _groups(Valued(str(k), r.dir.path.name) for r in runs for k in commits(r))
    world = _distinct(done, "world_size") or sorted({str(r.config.cluster.world_size) for r in runs})
    devices = _distinct(done, "device") or sorted({r.config.cluster.device for r in runs})
    return [
        Fact("Data", _data(sweep)),
        Fact("Scale", f"{'; '.join(scales)}, {schedule_text(common)}"),
        Fact("Seeds", ", ".join(map(str, sorted({r.config.seed for r in runs})))),
        Fact(
            "Commit", ", ".join(made_by) or ("none recorded" if any(r.attempts for r in runs) else "no run has started")
        ),
        Fact("World size", f"{', '.join(world)} ({', '.join(devices)}), precision {c.scale.precision}"),
        Fact("Evaluation", _evaluation(sweep)),
        Fact("Selection", sweep.spec.selection),
        Fact("Runs", _states(runs)),
        *([Fact("Own schedule", "; ".join(f"{label}: {text}" for label, text in own.items()))] if own else []),
        *_normalised(runs),
        *_averaged(runs),
        *_imported(runs, "optimizer"),
        *_imported(runs, "network"),
    ]


def _normalised(runs: Sequence[Run]) -> list[Fact]:
    """How many images a BatchNorm saw at once, by what the runs recorded."""
    values: list[Valued] = []
    for r in runs:
        recorded = r.curve("train", "batch_norm_images")[:, 1]
        numbers = dict.fromkeys(int(n) for n in recorded)
        values.append(Valued(", then ".join(map(str, numbers)), r.dir.path.name))
    groups = _groups(values)
    words = _spell(groups) if len(groups) > 1 else "".join(groups)
    return [Fact("Images normalised together", words)] if groups else []


def _averaged(runs: Sequence[Run]) -> list[Fact]:
    """Which optimizers were evaluated at an average of their own, and what BatchNorm's statistics there are of."""
    found: dict[str, None] = {}
    for r in runs:
        e = section(r.result, "evaluation")
        if "point" in e:
            batches = count(e, "batch_norm_batches")
            of = f", BatchNorm's statistics there over {batches} training batches" if batches else ""
            found[f"{r.config.optimizer.label}{of}"] = None
    return [Fact("Evaluated at their own average", "; ".join(found))] if found else []


def _label(run: Run, part: str) -> str:
    """Of a run's ``part``, optimizer or network."""
    return run.config.optimizer.label if part == "optimizer" else run.config.model.label


def _imported(runs: Sequence[Run], part: str) -> list[Fact]:
    """Where the optimizers or networks that are not built in come from, by what their runs' attempts recorded."""
    found: dict[str, None] = {}
    for r in runs:
        for source in _sources(r, part):
            found[f"{_label(r, part)} from {source}"] = None
    return [Fact(f"Imported {part}s", "; ".join(found))] if found else []


def _sources(run: Run, part: str) -> list[str]:
    """``torch:NAdam, torch 2.14.1, nadam.py 3f2a…`` of every attempt."""
    found = []
    for attempt in run.attempts:
        if not (source := section(attempt, part)):
            continue
        distribution, file = text(source, "distribution"), text(source, "file")
        parts = [
            text(source, "name"),
            f"{distribution} {text(source, 'version')}" if distribution else "in no installed distribution",
            f"{file} ({text(source, 'sha256')[:12]})" if file else "its file is not known",
        ]
        if commit := text(source, "commit"):
            parts.append(f"commit {Commit(commit[:9], bool(source.get('dirty')))}")
        found.append(", ".join(parts))
    return found


def _states(runs: Sequence[Run]) -> str:
    counts: dict[str, int] = {}
    for r in runs:
        counts[r.status] = counts.get(r.status, 0) + 1
    return ", ".join(f"{n} {status}" for status, n in counts.items())


def _data(sweep: Sweep) -> str:
    r = next((r for r in sweep.runs if r.status == "done"), sweep.runs[0])
    parts = []
    for split, word in SPLITS:
        fingerprint = section(section(r.result, "fingerprint"), split)
        for unit in ("images", "tokens"):
            if n := count(fingerprint, f"num_{unit}"):
                parts.append(f"{n:,} {word} {unit} ({text(fingerprint, 'content_hash')[:12]})")
    data = r.config.data
    if isinstance(data, DataConfig) and data.val_share is not None:
        parts.append(f"{data.val_share:g} of each class validates, split_seed {data.split_seed}")
    return data.label + (f": {', '.join(parts)}" if parts else "")


def _evaluation(sweep: Sweep) -> str:
    texts: dict[str, None] = {}
    for r in sweep.runs:
        d, e = r.config.data, section(r.result, "evaluation")
        if d.kind != "images":
            own = {k: v for k, v in e.items() if k not in ("point", "batch_norm_batches")}  # see _averaged
            texts["; ".join(f"{k} {v}" for k, v in own.items()) or "not evaluated yet"] = None
            continue
        side = e.get("stored_max_side", d.write.max_side if d.backend == "ffcv" else None)
        size = f"stored with a longest side of {side} px ({d.write.mode})" if side else "images as they are"
        view = f"shorter side resized to {e.get('resize', d.eval_resize)}, centre crop {e.get('crop', d.eval_crop)}"
        if d.evaluated_on == "holdout":
            size = f"held-out training images (holdout_seed {d.holdout_seed}), the validation set unread; {size}"
        texts[f"{size}, {view}, read by {e.get('backend', d.backend)}"] = None
    return "; or ".join(texts)


def warnings(sweep: Sweep) -> list[str]:
    """Why the cells of this table may not be alike, one line each; empty when nothing is known against it."""
    runs = sweep.runs
    out: list[str] = []
    started = [r for r in runs if r.attempts or r.result]
    done = [r for r in runs if r.status == "done"]

    def differ(what: str, values: Iterable[Valued]) -> None:
        groups = _groups(values)
        if len(groups) > 1:
            out.append(f"{what}: {_spell(groups)}")

    differ(
        "Cells saw different data, so nothing is in bold and no two of them are compared",
        (Valued(" / ".join(h[:12] or "unknown" for h in fingerprints(r)), r.dir.path.name) for r in done),
    )
    out += [f"Cells were {line}" for line in _circumstances(started)]
    for part in ("optimizer", "network"):
        for label in dict.fromkeys(_label(r, part) for r in started):
            own = [r for r in started if _label(r, part) == label]
            differ(
                f"Cells of {label} were made by different code",
                (Valued(v, r.dir.path.name) for r in own for v in _sources(r, part)),
            )
    printed, planned = labels(sweep), sweep.spec.labels.overrides
    off_plan = _groups(
        Valued(printed.overrides(r.overrides), r.dir.path.name)
        for r in runs
        if r.overrides not in planned and not sweep.spec.search  # whose trials differ on purpose
    )
    if off_plan:
        out.append(f"Settings off the grid's own, in rows of their own: {_spell(off_plan)}")
    by_cell = sweep.spec.settings_from is not None
    out += [f"Cells differ in {line}" for line in _differing_settings(runs, by_cell)]
    return out + _counts(done)


def differing(runs: Sequence[Run], *, by_cell: bool) -> list[str]:
    """What runs that are compared differ in beyond what a grid varies, in words: the same for tables and for claims.

    Args:
        by_cell: whether a search selected each cell's settings, as in ``_settings``.
    """
    return [*_circumstances(runs), *(f"differing in {line}" for line in _differing_settings(runs, by_cell))]


def _circumstances(runs: Sequence[Run]) -> list[str]:
    """How runs were made, where that differs: code, ranks, passes, machine, versions. Data are held apart."""
    started = [r for r in runs if r.attempts or r.result]
    named = [(r.dir.path.name, r) for r in started]
    attempts = [(name, a) for name, r in named for a in r.attempts]
    worlds = [Valued(a.get("world_size"), name) for name, a in attempts]
    worlds += [Valued(r.result.get("world_size"), name) for name, r in named]
    passes = [Valued(r.config.scale.micro_batch_size or "one pass a step", name) for name, r in named]
    normalised = [Valued(int(n), name) for name, r in named for n in r.curve("train", "batch_norm_images")[:, 1]]
    devices = [Valued(r.result.get("device"), name) for name, r in named if r.status == "done"]
    found = {
        "made by different commits": [Valued(k.name, name) for name, r in named for k in commits(r)],
        "trained at different world sizes": worlds,
        "trained in different micro-batches": passes,
        "trained with different numbers of images normalised together": normalised,
        "trained on different devices": devices,
    }
    versions = [(name, section(a, "versions")) for name, a in attempts]
    for package in dict.fromkeys(package for _, of_attempt in versions for package in of_attempt):
        of_package = [Valued(of_attempt.get(package), name) for name, of_attempt in versions]
        found[f"trained with different versions of {package}"] = of_package
    groups = {what: _groups(values) for what, values in found.items()}
    lines = [f"{what}: {_spell(of_what)}" for what, of_what in groups.items() if len(of_what) > 1]
    dirty = sorted({name for name, r in named if any(k.dirty for k in commits(r))})
    if dirty:
        lines.append(f"made with uncommitted changes, so the commit does not name the code: {_names(dirty)}")
    return lines


def _differing_settings(runs: Sequence[Run], by_cell: bool) -> list[str]:
    """Settings that the grid does not vary and that differ all the same; optimizer and model within their own kind.

    What a search selected differs between networks, and between an optimizer's own settings and moved ones, so there
    the optimizer's settings are compared within their cell.
    """
    first: dict[str, object] = {}
    varying: dict[str, None] = {}  # nearly always empty: values are spelled for these alone
    for r in runs:
        for key, v in _settings(r, by_cell):
            if first.setdefault(key, v) != v:
                varying[key] = None
    values: dict[str, list[Valued]] = {key: [] for key in varying}
    for r in runs if varying else ():
        for key, v in _settings(r, by_cell):
            if key in varying:
                values[key].append(Valued(str(v), r.dir.path.name))
    groups = {key: _groups(of_key) for key, of_key in values.items()}
    return [f"{key}: {_spell(of_key)}" for key, of_key in groups.items() if len(of_key) > 1]


def _settings(run: Run, by_cell: bool) -> Iterator[tuple[str, object]]:
    """The settings that its grid does not vary; those of its optimizer and its model under their names.

    Args:
        by_cell: those of its optimizer under the name of its cell.
    """
    optimizer = run.config.optimizer.label
    if by_cell:
        optimizer += f" on {run.config.model.label}" + (f" ({run.overrides})" if run.overrides else "")
    sections = {"schedule": optimizer, "optimizer": optimizer, "model": run.config.model.label}
    for key, v in {**_LATER, **run.settings}.items():
        if not key.startswith(_AXES) and key not in run.config.overrides:
            # An optimizer may have a schedule and clipping of its own, which the header says.
            section = "schedule" if key == "train.clip_grad_norm" else key.partition(".")[0]
            label = sections.get(section)
            yield (f"{key} of {label}" if label else key), v


def _counts(done: Sequence[Run]) -> list[str]:
    """Runs that were not evaluated on the full data set, or not trained on it."""
    groups: dict[str, list[str]] = {}
    for r in done:
        prints = section(r.result, "fingerprint")
        evaluated_on = r.config.data.evaluated_on
        counts = {"train": r.config.data.expected_train, "val": r.config.data.expected_val}
        for split, expected in counts.items():
            held = count(section(prints, split), "num_images")
            if expected and held and held != expected:
                line = f"{split} holds {held:,} images, {r.config.data.label} has {expected:,}"
                groups.setdefault(line, []).append(r.dir.path.name)
        seen, held = (
            count(section(r.result, "evaluation"), "images"),
            count(section(prints, evaluated_on), "num_images"),
        )
        if seen and held and seen != held:
            groups.setdefault(f"evaluation counted {seen:,} images of {held:,}", []).append(r.dir.path.name)
    return [_spell({line: runs}) for line, runs in groups.items()]


def problems(sweep: Sweep) -> list[str]:
    """Corrupt, half-written and failed runs by name, one line each."""
    out = list(sweep.unreadable)
    diverged = sum(r.status == "diverged" for r in sweep.runs)
    many = bool(sweep.spec.search) and diverged > NAMED  # which a search with wide ranges expects, and its table counts
    if many:
        out.append(f"{diverged} runs of the search diverged; they are among all trials")
    for r in sweep.runs:
        out += [f"{r.name}: {p}" for p in r.problems]
        last = r.attempts[-1] if r.attempts else {}
        if r.status == "failed" and last.get("why") != "done" and (last or not r.problems):
            out.append(
                f"{r.name}: failed: {last.get('detail') or 'it stopped without a reason (killed?)'}; see its log"
            )
        if r.status == "diverged" and not many:
            reason = r.result.get("reason", "no reason given")
            out.append(f"{r.name}: diverged in epoch {r.result.get('epoch', '?')}: {reason}")
    return out


def missing(sweep: Sweep) -> list[str]:
    """The runs that were planned and whose directory is gone, one line each.

    A grid.yaml of before names no runs: a run of its axes is then there with any settings off the axes.
    """
    spec = sweep.spec
    held = [p.name for p in sweep.folder.iterdir() if p.is_dir()]
    if spec.runs:
        return [_gone(sweep, name) for name in spec.runs if name not in held]
    read = {(r.config.model.name, r.config.optimizer.name, r.config.seed) for r in sweep.runs}
    gone = []
    for model, optimizer, seed in itertools.product(spec.models, spec.optimizers, spec.seeds):
        name = run_name(model, optimizer, seed, {})
        start, end = name.removesuffix(f"s{seed}"), f"-s{seed}"
        if (model, optimizer, seed) not in read and not any(n.startswith(start) and n.endswith(end) for n in held):
            gone.append(name)
    return [_gone(sweep, name) for name in gone]


def _gone(sweep: Sweep, name: str) -> str:
    return f"{sweep.name}/{name}: planned, and its directory is gone; plan the grid again"
