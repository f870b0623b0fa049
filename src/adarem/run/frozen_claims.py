"""claims.json of a sweep: a hash of every claim as it stood when the sweep was planned, before its first run began."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from adarem.run.errors import UserError
from adarem.run.files import write_atomically
from adarem.run.sweep import runs_in

FILE = "claims.json"


@dataclass(frozen=True)
class Frozen:
    """Claims by id, each with the hash of its entry; comments and the order of keys change none."""

    claims: Mapping[str, str]

    @property
    def hash(self) -> str:
        """Of all of them together."""
        return _hash(dict(self.claims))


def claims_now(path: Path) -> Frozen:
    """Of ``claims.yaml``. Raises UserError where it holds no list of claims."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path}: holds no list of claims; fix it, or restore it from the repository")
    return Frozen({str(entry.get("id", n)): _hash(entry) for n, entry in enumerate(entries, 1)})


def freeze(folder: Path, claims: Path | None) -> None:
    """Writes ``claims.json`` into a sweep's folder, unless one of its runs has begun: it then stays as it is.

    Raises:
        UserError: as ``claims_now``.
    """
    begun = any(run.attempts_file.exists() or run.result_file.exists() for run in runs_in(folder))
    if claims is None or begun:
        return
    found = claims_now(claims)
    text = json.dumps({"hash": found.hash, "claims": found.claims}, indent=2, ensure_ascii=False)
    write_atomically(folder / FILE, text + "\n")


def frozen(folder: Path) -> Frozen | None:
    """What was frozen; None of a sweep whose runs began before hashes were kept, or of a file that is damaged."""
    try:
        raw = json.loads((folder / FILE).read_text(encoding="utf-8"))
        claims = {str(k): str(v) for k, v in raw["claims"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Frozen(claims) if Frozen(claims).hash == raw.get("hash") else None


def changed(before: Frozen, now: Frozen) -> list[str]:
    """In words which claims are not what they were: ``adarem-matches-sgdm``, ``x (new)``, ``y (removed)``."""
    lines = []
    for name in {**before.claims, **now.claims}:
        if name not in now.claims:
            lines.append(f"{name} (removed)")
        elif name not in before.claims:
            lines.append(f"{name} (new)")
        elif before.claims[name] != now.claims[name]:
            lines.append(name)
    return lines


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
