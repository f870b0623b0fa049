"""Optimizers that are imported by name, checked in a child process before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass

from adarem.plan.child_process import ChildProcess, distinct
from adarem.run.build import nearest, own_keys
from adarem.run.config import OptimizerConfig, RunConfig, to_dict
from adarem.run.errors import UserError

_OWN_KEYS = own_keys(OptimizerConfig)  # of a config's section, and no settings of a signature


@dataclass(frozen=True)
class Signature:
    """The settings of an optimizer's class or factory."""

    names: tuple[str, ...]
    required: tuple[str, ...]  # without a default, next to those that every run gives
    defaults: Mapping[str, object]
    weight_decay: object  # the default
    takes_weight_decay: bool
    averages: bool = False  # a class that switches between train() and eval(): its averaging replaces a schedule


class OptimizerChecks:
    """What the child process finds out, each thing once."""

    def __init__(self, child: ChildProcess) -> None:
        self._child = child
        self._signatures: dict[str, Signature] = {}

    def signature(self, name: str) -> Signature:
        """Raises UserError for an optimizer that cannot be imported, is none, or needs a closure."""
        if name not in self._signatures:
            found = self._child.ask({"describe": name}, f"optimizer={name}")
            names, required, defaults = found["names"], found["required"], found["defaults"]
            assert isinstance(names, list) and isinstance(required, list) and isinstance(defaults, dict)
            self._signatures[name] = Signature(
                tuple(names),
                tuple(required),
                defaults,
                found["weight_decay"],
                bool(found["takes_weight_decay"]),
                bool(found["averages"]),
            )
        return self._signatures[name]

    def try_runs(self, configs: list[RunConfig]) -> list[str]:
        """Builds each optimizer that is imported, with its settings. Raises UserError for one that refuses them.

        Returns:
            What a person should know of them, one line each.
        """
        imported = (c for c in configs if c.optimizer.imported is not None)
        notes: dict[str, None] = {}
        # Whatever bears on how it is built.
        for config in distinct(imported, lambda c: (c.optimizer, c.model, c.data, c.schedule, c.scale, c.train)):
            answer = self._child.ask({"try": to_dict(config)}, f"optimizer={config.optimizer.imported}")
            if (note := answer.get("note")) is not None:
                notes[str(note)] = None
        return list(notes)


def complete(optimizer: dict[str, object], name: str, signature: Signature) -> None:
    """Adds to a composed ``optimizer`` section, in place, the defaults of its class, so that a run's config says all.

    Args:
        name: where the optimizer is imported from.

    Raises:
        UserError: no learning rate, an unknown setting, one that is missing.
    """
    own = [k for k in optimizer if k not in _OWN_KEYS]
    for key in own:
        if key not in signature.names:
            raise UserError(f"optimizer.{key}: {name} names no such setting; {nearest(key, signature.names)}")
    if optimizer.get("lr") is None:
        raise UserError(
            f"optimizer.lr: not given for {name}, and none is guessed; give it, for instance optimizer.lr=0.001, or in "
            "a file of configs/optimizer"
        )
    for key in signature.required:
        if key not in optimizer:
            raise UserError(f"optimizer.{key}: {name} has no default for it; give it, optimizer.{key}=...")
    if signature.takes_weight_decay:
        if optimizer.setdefault("weight_decay", signature.weight_decay) is None:
            raise UserError(f"optimizer.weight_decay: {name} has no default for it; give it, optimizer.weight_decay=0")
    elif optimizer.setdefault("weight_decay", 0.0):
        raise UserError(
            f"optimizer.weight_decay={optimizer['weight_decay']}: {name} names no such setting; leave it out"
        )
    for key, value in signature.defaults.items():
        if key not in optimizer or _alike(optimizer[key], value):  # a default that is spelled out is the default
            optimizer[key] = value


def _alike(a: object, b: object) -> bool:
    """Whether two settings are the same but for 1 and 1.0."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (a, b))
    return a == b and (numbers or type(a) is type(b))
