"""Where a table's numbers come from, and whether its cells may be compared."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from adarem.report.labels import labels
from adarem.report.load import Run, Sweep, fingerprints
from adarem.run.sweep import cell_name

# Settings that a grid varies on purpose, or that name a cell.
_AXES = ("seed", "cell", "grid", "overrides.", "model.", "optimizer.")


def _groups(pairs: Iterable[tuple[Any, str]]) -> dict[str, list[str]]:
    """Names by value, each name once; unknown values left out."""
    groups: dict[str, dict[str, None]] = {}
    for value, name in pairs:
        if value not in (None, ""):
            groups.setdefault(str(value), {})[name] = None
    return {value: list(names) for value, names in groups.items()}


def _spell(groups: dict[str, list[str]]) -> str:
    """``3f2a (5 runs), 9c1d (resnet18-adam-s0)``: the largest group first, small ones by name."""
    ordered = sorted(groups.items(), key=lambda g: -len(g[1]))
    return ", ".join(f"{v} ({', '.join(names) if len(names) <= 3 else f'{len(names)} runs'})" for v, names in ordered)


def _short(commit: Any) -> str:
    return str(commit)[:9] if commit else ""


def _commits(run: Run) -> list[tuple[str, bool]]:
    """(commit, dirty) of every attempt, and of the result."""
    told = [*run.attempts, run.result]
    return [(_short(t.get("commit")), bool(t.get("dirty"))) for t in told if t.get("commit")]


def _figures(runs: list[Run], key: str) -> list[str]:
    return list(dict.fromkeys(str(r.result[key]) for r in runs if r.result.get(key) is not None))


def facts(sweep: Sweep) -> list[tuple[str, str]]:
    """The header of a table: (what, text)."""
    runs = sweep.runs
    if not runs:
        return []
    done = [r for r in runs if r.status == "done"]
    c = runs[0].config
    out = [("Data", _data(sweep))]
    scales = dict.fromkeys(
        f"{x.epochs} epochs, global batch {x.global_batch_size}" for x in (r.config.scale for r in runs)
    )
    schedule = f"{c.schedule.name} learning rate" + (
        f", {c.schedule.warmup_epochs:g} epochs of warm-up" if c.schedule.warmup_epochs else ", no warm-up"
    )
    out.append(("Scale", f"{'; '.join(scales)}, {schedule}"))
    out.append(("Seeds", ", ".join(map(str, sorted({r.config.seed for r in runs})))))
    commits = _groups((f"{k}{' (dirty)' if d else ''}", r.dir.path.name) for r in runs for k, d in _commits(r))
    out.append(("Commit", ", ".join(commits) or "no run has started"))
    world = _figures(done, "world_size") or sorted({str(r.config.cluster.world_size) for r in runs})
    devices = _figures(done, "device") or sorted({r.config.cluster.device for r in runs})
    out.append(("World size", f"{', '.join(world)} ({', '.join(devices)}), precision {c.scale.precision}"))
    out.append(("Evaluation", _evaluation(sweep)))
    out.append(("Selection", str(sweep.grid.get("selection", "final epoch"))))
    out.append(("Runs", _states(runs)))
    return out


def _states(runs: list[Run]) -> str:
    counts: dict[str, int] = {}
    for r in runs:
        counts[r.status] = counts.get(r.status, 0) + 1
    return ", ".join(f"{n} {s}" for s, n in counts.items())


def _data(sweep: Sweep) -> str:
    r = next((r for r in sweep.runs if r.status == "done"), sweep.runs[0])
    parts = []
    for split, word in (("train", "training"), ("val", "validation"), ("test", "test")):
        f = (r.result.get("fingerprint") or {}).get(split) or {}
        for unit in ("images", "tokens"):
            if f.get(f"num_{unit}"):
                parts.append(f"{f[f'num_{unit}']:,} {word} {unit} ({str(f.get('content_hash', ''))[:12]})")
    return f"{r.config.data.label}" + (f": {', '.join(parts)}" if parts else "")


def _evaluation(sweep: Sweep) -> str:
    texts = {}
    for r in sweep.runs:
        d, e = r.config.data, r.result.get("evaluation") or {}
        if d.kind != "images":
            texts["; ".join(f"{k} {v}" for k, v in e.items()) or "not evaluated yet"] = None
            continue
        side = e.get("stored_max_side", d.write.max_side if d.backend == "ffcv" else None)
        size = f"stored with a longest side of {side} px ({d.write.mode})" if side else "images as they are"
        view = f"shorter side resized to {e.get('resize', d.eval_resize)}, centre crop {e.get('crop', d.eval_crop)}"
        texts[f"{size}, {view}, read by {e.get('backend', d.backend)}"] = None
    return "; or ".join(texts)


def warnings(sweep: Sweep) -> list[str]:
    """Why the cells of this table may not be alike, one line each; empty when nothing is known against it."""
    runs, out = sweep.runs, []
    started = [r for r in runs if r.attempts or r.result]
    done = [r for r in runs if r.status == "done"]

    def differ(what: str, groups: dict[str, list[str]], tail: str = "") -> None:
        if len(groups) > 1:
            out.append(f"{what}: {_spell(groups)}{tail}")

    prints = _groups((" / ".join(h[:12] or "unknown" for h in fingerprints(r)), r.dir.path.name) for r in done)
    differ("Cells saw different data, so nothing is in bold and no two of them are compared", prints)
    differ(
        "Cells were made by different commits", _groups((k, r.dir.path.name) for r in started for k, _ in _commits(r))
    )
    dirty = sorted({r.dir.path.name for r in started if any(d for _, d in _commits(r))})
    if dirty:
        named = ", ".join(dirty) if len(dirty) <= 3 else f"{len(dirty)} runs"
        out.append(f"Made with uncommitted changes, so the commit does not tell the code: {named}")
    worlds = [(a.get("world_size"), r.dir.path.name) for r in started for a in r.attempts]
    worlds += [(r.result.get("world_size"), r.dir.path.name) for r in started]
    differ("Cells were trained at different world sizes", _groups(worlds))
    differ("Cells were trained on different devices", _groups((r.result.get("device"), r.dir.path.name) for r in done))
    torches = [((a.get("versions") or {}).get("torch"), r.dir.path.name) for r in started for a in r.attempts]
    differ("Cells were trained with different versions of torch", _groups(torches))
    printed, planned = labels(sweep), sweep.grid.get("labels", {}).get("settings", {})
    off = _groups((printed.overrides(r.overrides), r.dir.path.name) for r in runs if r.overrides not in planned)
    if off:
        out.append(f"Settings off the grid's own, in rows of their own: {_spell(off)}")
    out += _differing_settings(runs)
    out += _counts(done)
    return out


def _differing_settings(runs: list[Run]) -> list[str]:
    """Settings that the grid does not vary and that differ all the same; optimizer and model within their own kind."""
    first: dict[str, Any] = {}
    differing: dict[str, None] = {}  # nearly always empty: values are spelled for these alone
    for r in runs:
        for key, v in _settings(r):
            if first.setdefault(key, v) != v:
                differing[key] = None
    pairs: dict[str, list[tuple[str, str]]] = {key: [] for key in differing}
    for r in runs if differing else ():
        for key, v in _settings(r):
            if key in differing:
                pairs[key].append((str(v), r.dir.path.name))
    groups = {key: _groups(values) for key, values in pairs.items()}
    return [f"Cells differ in {key}: {_spell(of)}" for key, of in groups.items() if len(of) > 1]


def _settings(run: Run) -> Iterator[tuple[str, Any]]:
    """The settings that its grid does not vary; those of its optimizer and its model under their names."""
    labels = {"optimizer": run.config.optimizer.label, "model": run.config.model.label}
    for k, v in run.settings.items():
        if not k.startswith(_AXES[:4]) and k not in run.config.overrides:
            label = labels.get(k.partition(".")[0])
            yield (f"{k} of {label}" if label else k), v


def _counts(done: list[Run]) -> list[str]:
    """Runs that were not evaluated on the whole genuine set, or not trained on it."""
    groups: dict[str, list[str]] = {}
    for r in done:
        prints = r.result.get("fingerprint") or {}
        for split, expected in (("train", r.config.data.expected_train), ("val", r.config.data.expected_val)):
            there = (prints.get(split) or {}).get("num_images")
            if expected and there and there != expected:
                text = f"{split} holds {there:,} images, {r.config.data.label} has {expected:,}"
                groups.setdefault(text, []).append(r.dir.path.name)
        seen = (r.result.get("evaluation") or {}).get("images")
        held = (prints.get("val") or {}).get("num_images")
        if seen and held and seen != held:
            groups.setdefault(f"evaluation counted {seen:,} images of {held:,}", []).append(r.dir.path.name)
    return [f"{_spell({text: names})}" for text, names in groups.items()]


def problems(sweep: Sweep) -> list[str]:
    """Corrupt, half-written and failed runs by name, one line each."""
    out = list(sweep.unreadable)
    for r in sweep.runs:
        out += [f"{r.name}: {p}" for p in r.problems]
        last = r.attempts[-1] if r.attempts else {}
        if r.status == "failed" and last.get("why") != "done" and (last or not r.problems):
            out.append(f"{r.name}: failed: {last.get('detail') or 'it stopped without a word (killed?)'}; see its log")
        if r.status == "diverged":
            reason = r.result.get("reason", "no reason given")
            out.append(f"{r.name}: diverged in epoch {r.result.get('epoch', '?')}: {reason}")
    return out


def missing(sweep: Sweep) -> list[str]:
    """The runs that were planned and whose directory is gone, one line each; with any settings off the axes."""
    axes = sweep.grid["axes"]
    held = [p.name for p in sweep.folder.iterdir() if p.is_dir()]
    read = {(r.config.model.name, r.config.optimizer.name, r.config.seed) for r in sweep.runs}
    gone = []
    for model, optimizer, seed in itertools.product(axes["model"], axes["optimizer"], sweep.grid.get("seeds") or [0]):
        name = cell_name(model, optimizer, seed, {})
        start, end = name.removesuffix(f"s{seed}"), f"-s{seed}"
        if (model, optimizer, seed) not in read and not any(n.startswith(start) and n.endswith(end) for n in held):
            gone.append(name)
    return [f"{sweep.name}/{name}: planned, and its directory is gone; plan the grid again" for name in gone]
