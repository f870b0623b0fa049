"""What is compared with the golden files, and how it is made anew. Each function works in an empty folder."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .harness import GOLDEN, adarem, as_json, python, report, trained, without_place

# One optimizer step an epoch, so that the loss of an epoch's record is the loss of a step.
LOSSES = {
    "digits": (
        "grid=table2", "data=digits", "data.root=digits", "optimizer=sgdm,adarem,adarem_s", "model=shufflenet_v2_0.5",
        "scale.epochs=20", "scale.global_batch_size=720", "train.eval_every=10", "train.checkpoint_every=10",
    ),
    "pydoc": (
        "grid=table3", "data=pydoc", "data.root=text", "optimizer=sgdm,adarem,adam", "data.vocabulary=200",
        "model.layers=2", "model.hidden=24", "model.embedding=16", "model.bptt=400", "scale.epochs=20",
        "scale.global_batch_size=40", "train.eval_every=10", "train.checkpoint_every=10",
    ),
}  # fmt: skip
STEPS = 20

PLANS = {
    "table1-imagenet": ("grid=table1", "data.root=/data/imagenet"),
    "table2-imagenet": ("grid=table2", "data.root=/data/imagenet", "seeds=[0,1]"),
    "figure2-imagenet": ("grid=figure2", "data.root=/data/imagenet"),
    "lambda-imagenet": ("grid=lambda", "data.root=/data/imagenet"),
    "table3-ptb": ("grid=table3", "data.root=/data/ptb"),
    "table3_search-ptb": ("grid=table3_search", "data.root=/data/ptb"),
    "table1-digits": ("grid=table1", "data=digits"),
    "table2-digits": ("grid=table2", "data=digits"),
    "table2-digits-axes": (
        "grid=table2", "data=digits", "optimizer=sgdm,adarem", "optimizer.lr=0.1,0.2", "optimizer.weight_decay=5e-4",
        "scale=smoke", "seeds=[3,5]",
    ),
    "figure2-digits": ("grid=figure2", "data=digits"),
    "lambda-digits": ("grid=lambda", "data=digits"),
    "table3-pydoc": ("grid=table3", "data=pydoc"),
    "table3_search-pydoc": ("grid=table3_search", "data=pydoc"),
}  # fmt: skip

# Folder under sweeps/, of fixed numbers in the files of a run, to the settings of each report made of it in turn.
REPORTS = {
    "table1": [("table1",)],
    "table2": [("table2",)],
    "figure2": [("figure2",)],
    "table3": [("table3",), ("table3_search",)],
    "digits": [("table2", "data=digits")],
}

# Folder under runs/, of real trainings, to the settings of its report.
FINISHED = {"complete": ("table2", "data=digits")}
INTERRUPTED = "interrupted"  # each run stopped within an epoch, a checkpoint beside it


def losses(place: Path, data: str) -> dict[str, dict[str, Any]]:
    """Cell to its record, of a launch."""
    shutil.copytree(GOLDEN / "text", place / "text")
    words = (*LOSSES[data], "cluster.ranks_per_node=2", "wandb.mode=disabled", "runs_dir=runs", "results_dir=results")
    adarem(place, "prepare", *words)
    adarem(place, "launch", *words)
    found = {run.name: trained(run) for run in runs_under(place / "runs")}
    assert all(cell["train_step"] == list(range(1, STEPS + 1)) for cell in found.values()), "not a step an epoch"
    return found


def runs_under(folder: Path) -> list[Path]:
    """The run directories of all campaigns, in order of name."""
    return sorted(p.parent for p in folder.rglob("config.yaml"))


def plan(place: Path, name: str) -> dict[str, str]:
    """What a plan says before it makes the run directories, what it writes, and what it says when they are there."""
    words = (*PLANS[name], "runs_dir=runs")
    found = {}
    if "search" not in name:  # thirty cells a plan take long
        found["dry.txt"] = adarem(place, "plan", "--dry-run", *words)
        assert not (place / "runs").exists()
    found["plan.txt"] = adarem(place, "plan", *words)
    if name == "table2-digits":
        found["again.txt"] = adarem(place, "plan", *words)
    grids = (without_place(p.read_text(), place) for p in sorted(place.rglob("grid.yaml")))
    return found | {"grid.yaml": "".join(grids), "configs.yaml": configs(place)}


def configs(place: Path) -> str:
    """All frozen configs: the first in full, of each other one what differs from the first."""
    parts, first = [], None
    for run in runs_under(place / "runs"):
        text = without_place((run / "config.yaml").read_text(), place)
        flat = _flat(yaml.safe_load(text))
        if first is None:
            first = flat
            parts.append(f"# {run.relative_to(place)}\n{text}")
        else:
            differing = [k for k in {**first, **flat} if first.get(k, "absent") != flat.get(k, "absent")]
            lines = [f"{k}: {flat.get(k, 'absent')!r}\n" for k in differing]
            parts.append(f"# {run.relative_to(place)}, where it differs\n{''.join(lines)}")
    return "---\n".join(parts)


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for name, inner in value.items() for k, v in _flat(inner, f"{key}.{name}".lstrip(".")).items()}
    return {key: value}


def reports(place: Path, sweep: str) -> dict[str, str]:
    """All that status and reports say and write of a sweep."""
    shutil.copytree(GOLDEN / "sweeps" / sweep, place / "runs")
    found = {"status.txt": adarem(place, "status", "runs_dir=runs")}
    for settings in REPORTS[sweep]:
        found |= {f"{settings[0]}/{name}": text for name, text in report(place, *settings).items()}
    return found


def finished(place: Path, name: str) -> dict[str, str]:
    """Status and report of real runs."""
    shutil.copytree(GOLDEN / "runs" / name, place / "runs")
    found = {"status.txt": adarem(place, "status", "runs_dir=runs")}
    return found | report(place, *FINISHED[name])


def interrupted(place: Path) -> dict[str, str]:
    """Status of real runs that wait to go on."""
    shutil.copytree(GOLDEN / "runs" / INTERRUPTED, place / "runs")
    return {
        "status.txt": adarem(place, "status", "runs_dir=runs"),
        "status.json": adarem(place, "status", "--json", "runs_dir=runs"),
    }


def prepare_data(place: Path) -> None:
    """The data that the runs under runs/ were made with: where their config.yaml says, relative to ``place``."""
    shutil.copytree(GOLDEN / "text", place / "text")
    adarem(place, "prepare", "data=digits", "data.root=digits")


def went_on(place: Path) -> dict[str, dict[str, Any]]:
    """Cell to its record, each of the interrupted runs trained to its end on a copy."""
    shutil.copytree(GOLDEN / "runs" / INTERRUPTED, place / "runs")
    found = {}
    for run in runs_under(place / "runs"):
        ranks = yaml.safe_load((run / "config.yaml").read_text())["cluster"]["ranks_per_node"]
        train(place, run, ranks)
        assert "going on from step" in (run / "log.txt").read_text(), f"{run.name}: began anew"
        found[run.name] = trained(run)
    return found


def train(place: Path, run: Path, ranks: int) -> str:
    launcher = ("-m", "adarem.launch.ranks", f"--nproc-per-node={ranks}")
    return python(place, *launcher, "-m", "adarem", "train", str(run.relative_to(place)))


def golden_json(record: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    return as_json({"environment": dict(here), **record})
