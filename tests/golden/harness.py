"""What the golden tests share: the command line in a folder of its own, plain text of what it leaves, comparison.

Nothing here knows a module of adarem: only its commands, its settings and the files of a run and of a report.
"""

import difflib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent
EXPECTED = GOLDEN / "expected"
UPDATE = "python -m tests.golden.update"
TOLERANCE = 1e-4  # relative, of figures that another machine computes
IMAGES = 1.0  # percent, of images that another machine gets right
# Steps until another machine's rounding shows: BatchNorm at a large learning rate makes 1e-6 of them 1e-2 in two steps.
STEPS_ALIKE = {"digits": 2}

# What the report writes: golden name to the path under the results directory. A file that a grid has not is left out.
OUTPUTS = {
    "runs.csv": "{sweep}/runs.csv",
    "claims.csv": "claims.csv",
    "claims.md": "claims.md",
    "table.md": "{sweep}/table.md",
    "table.csv": "{sweep}/table.csv",
    "table.tex": "{sweep}/table.tex",
    "time.md": "{sweep}/time.md",
    "time.csv": "{sweep}/time.csv",
    "steps.csv": "{sweep}/steps.csv",
    "search-best.csv": "{sweep}/search-best.csv",
    "search-trials.csv": "{sweep}/search-trials.csv",
    "search-best-of-k.csv": "{sweep}/search-best-of-k.csv",
    "search-learning-rate.csv": "{sweep}/search-learning-rate.csv",
}
_FIGURES = (
    "figure1", "figure1-parameters", "figure2", "figure4", "figure5", "figure5-others", "lambda-curves",
    "{grid}-curves", "{grid}-time", "{grid}-time-others", "{grid}-steps",
    "search-best-of-k", "search-settings", "search-lr",
)  # fmt: skip
# Of these the screen's list of written files has the names; their bytes depend on fonts and libraries.
NOT_COMPARED = {"report.html": "{sweep}/report.html", "index.html": "index.html"}
NOT_COMPARED |= {"manifest.json": "{sweep}/manifest.json"}
NOT_COMPARED |= {f"{name}.{kind}": f"{{sweep}}/figures/{name}.{kind}" for name in _FIGURES for kind in ("png", "svg")}


def adarem(place: Path, *arguments: str, code: int | None = 0) -> str:
    """Runs a command of adarem in ``place`` and returns what it prints, without the name of that folder."""
    return python(place, "-m", "adarem", *arguments, code=code)


def python(place: Path, *arguments: str, code: int | None = 0) -> str:
    # COLUMNS: tables on the screen are as wide as it.
    set_here = {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1"}
    inherited = {k: v for k, v in os.environ.items() if k not in ("IMAGENET", "PTB", "WANDB_API_KEY")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        env=inherited | set_here,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert code is None or done.returncode == code, (
        f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return without_place(done.stdout, place)


def without_place(text: str, place: Path) -> str:
    return text.replace(f"{place}/", "").replace(str(place), ".")


def report(place: Path, grid: str, *settings: str) -> dict[str, str]:
    """Golden name to text of all that ``adarem report`` says and writes, whatever folders its files lie in."""
    screen = adarem(place, "report", f"grid={grid}", "runs_dir=runs", "results_dir=results", *settings)
    found, names = {}, {}
    sweep = "-".join([grid, *(s.removeprefix("data=") for s in settings if s.startswith("data="))])
    for name, path in (OUTPUTS | NOT_COMPARED).items():
        path = path.format(grid=grid, sweep=sweep)
        names[path] = name.format(grid=grid)
        file = place / "results" / path
        if name in OUTPUTS and file.exists():
            found[name] = _links_by_name(without_place(file.read_text(), place))
    missing = [path for path in re.findall(r"^  results/(\S+)$", screen, re.MULTILINE) if path not in names]
    assert not missing, f"{missing}: not in OUTPUTS or NOT_COMPARED of {__name__}"
    assert "table.md" in found, f"no table among {sorted(p.name for p in (place / 'results').rglob('*'))}"
    for path, name in sorted(names.items(), key=lambda item: -len(item[0])):
        screen = screen.replace(f"results/{path}", f"<{name}>")
    before, _, written = screen.partition("Written:\n")
    found["screen.txt"] = before + "Written:\n" + "\n".join(sorted(written.splitlines())) + "\n"
    return found


def _links_by_name(text: str) -> str:
    """Links lead to a file's name: where it lies relative to this one is no part of what is compared."""
    return re.sub(r"\]\((?!https?:)(?:[^()\s]*/)?([^()/\s]+)\)", r"](\1)", text)


def environment(place: Path) -> dict[str, Any]:
    """What the last bits of a training depend on."""
    told = python(
        place,
        "-c",
        "import json, torch; print(json.dumps({'torch': torch.__version__, "
        "'cpu': torch.backends.cpu.get_cpu_capability(), 'threads': torch.get_num_threads()}))",
    )
    return json.loads(told)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def trained(run: Path) -> dict[str, Any]:
    """What a finished run computed, floats to the bit as hexadecimals; and a checksum of its last weights."""
    last = {(r["epoch"], r["split"]): r for r in lines(run / "metrics.jsonl")}  # an epoch done twice counts once
    records = [last[k] for k in sorted(last)]
    result = json.loads((run / "result.json").read_text())
    kept = ("top1", "top5", "perplexity", "val_perplexity", "val_loss", "train_loss", "epochs", "steps", "parameters")
    return {
        "train_loss": [r["loss"].hex() for r in records if r["split"] == "train"],
        "train_step": [r["step"] for r in records if r["split"] == "train"],
        "lr": [r["lr"].hex() for r in records if r["split"] == "train"],
        "val_loss": [r["loss"].hex() for r in records if r["split"] == "val"],
        "result": {k: v.hex() if isinstance(v := result[k], float) else v for k in kept if k in result},
        "weights": weights_checksum(run),
    }


def weights_checksum(run: Path) -> str:
    """Of the bytes of every tensor of the model in the newest checkpoint, in order of name."""
    import torch

    newest = max((run / "checkpoints").glob("step-*.pt"))
    digest = hashlib.sha256()
    for name, tensor in sorted(torch.load(newest, map_location="cpu", weights_only=True)["model"].items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def check(folder: str, outputs: Mapping[str, str]) -> None:
    """Compares texts with the golden files of a folder; raises AssertionError with a unified diff."""
    expected = {str(p.relative_to(EXPECTED / folder)): p for p in (EXPECTED / folder).rglob("*") if p.is_file()}
    differing = []
    for name in sorted({*expected, *outputs}):
        old = expected[name].read_text() if name in expected else ""
        differing += _diff(f"{folder}/{name}", old, outputs.get(name, ""))
    assert not differing, message(differing)


def check_trained(folder: str, name: str, found: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Compares a training's record to the bit where torch, vector set and threads are the same, else roughly."""
    golden = json.loads((EXPECTED / folder / f"{name}.json").read_text())
    if golden.pop("environment") == here:
        differing = _diff(f"{folder}/{name}.json", as_json(golden), as_json(dict(found)))
    elif name in STEPS_ALIKE:
        differing = list(_roughly("", _first_steps(golden, name), _first_steps(found, name)))
    else:
        differing = list(_roughly("", golden, found))
    assert not differing, message(differing)


def _first_steps(runs: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Of each run what another machine's rounding has not reached."""
    kept = {run: {k: v for k, v in record.items() if k not in ("val_loss", "result")} for run, record in runs.items()}
    return {run: record | {"train_loss": record["train_loss"][: STEPS_ALIKE[name]]} for run, record in kept.items()}


def _roughly(where: str, old: Any, new: Any) -> Iterable[str]:
    if where.endswith(".weights"):  # a checksum
        return
    if isinstance(old, dict) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _roughly(f"{where}.{key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _roughly(f"{where}[{i}]", a, b)
    elif isinstance(old, str) and isinstance(new, str):
        a, b = float.fromhex(old), float.fromhex(new)
        allowed = IMAGES if where.endswith((".top1", ".top5")) else TOLERANCE * max(abs(a), abs(b))
        if not abs(a - b) <= allowed:
            yield f"{where}: {a} is expected within {allowed:g}, {b} found"
    elif old != new:
        yield f"{where}: {old} is expected, {new} found"


def _diff(name: str, old: str, new: str) -> list[str]:
    return list(
        difflib.unified_diff(old.splitlines(), new.splitlines(), f"golden {name}", f"found {name}", lineterm="", n=1)
    )


def message(differing: Iterable[str]) -> str:
    shown = list(differing)
    cut = [f"... {len(shown) - 200} more lines"] if len(shown) > 200 else []
    return "\n".join(
        [
            "differs from the golden files:",
            *shown[:200],
            *cut,
            f"If that is meant: {UPDATE}, and commit what it changes",
        ]
    )
