"""Which configs compute the same thing: the part of a config that decides the result, its hash, and differences."""

import hashlib
import json
from collections.abc import Mapping

from adarem.run.batch_norm import MICRO_BATCH, micro_batch_counts
from adarem.run.config import RunConfig, to_dict

# What may differ between two starts of one run without changing its result: where data lie, who computes, who watches.
_CIRCUMSTANCES = ("cluster", "wandb", "data.root", "data.beton_dir", "data.workers", "model.init", "train.watch_every")


def identity(config: RunConfig) -> dict[str, object]:
    """The part of a config that decides the run's result, flattened to dotted keys.

    Settings that came after version 0.1 are left out while they have their default, as ``to_dict`` does, so that runs
    of before keep their hash, and their checkpoints fit. So is ``scale.micro_batch_size`` where it bears on no result
    or only does what the paper's or a rehearsal's ranks do, see `batch_norm.micro_batch_counts`.
    """

    def flatten(node: Mapping[str, object], prefix: str) -> dict[str, object]:
        flat: dict[str, object] = {}
        for k, v in node.items():
            if f"{prefix}{k}" in _CIRCUMSTANCES:
                continue
            flat |= flatten(v, f"{prefix}{k}.") if isinstance(v, dict) else {f"{prefix}{k}": v}
        return flat

    flat = flatten(to_dict(config), "")
    if not micro_batch_counts(config):
        flat.pop(MICRO_BATCH, None)
    return flat


def config_hash(config: RunConfig) -> str:
    """Hash of ``identity``: runs with equal hashes compute the same thing."""
    return hash_of(identity(config))


def hash_of(settings: Mapping[str, object]) -> str:
    """``config_hash`` of the config whose ``identity`` this is."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def differing_keys(a: RunConfig, b: RunConfig) -> list[str]:
    """``key: in a, in b`` for every key on which two configs' identities differ."""
    x, y = identity(a), identity(b)
    return [f"{k}: {x.get(k, 'absent')} against {y.get(k, 'absent')}" for k in sorted({*x, *y}) if x.get(k) != y.get(k)]
