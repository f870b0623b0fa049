"""Optimizers that are imported by name, checked before anything is written.

In a child process, since plan loads no torch.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from adarem.run.build import nearest
from adarem.run.config import RunConfig, to_dict
from adarem.run.errors import UserError


@dataclass(frozen=True)
class Signature:
    """The settings of an optimizer's class or factory."""

    names: tuple[str, ...]
    required: tuple[str, ...]  # without a default, next to those that every run gives
    defaults: Mapping[str, object]
    weight_decay: object  # the default
    takes_weight_decay: bool


class OptimizerChecks:
    """The child process, which starts with the first question and ends with this context."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  a pipe that nobody empties would stop the child
        self._signatures: dict[str, Signature] = {}

    def __enter__(self) -> "OptimizerChecks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
        self._stderr.close()

    def signature(self, name: str) -> Signature:
        """Raises UserError for an optimizer that cannot be imported, is none, or needs a closure."""
        if name not in self._signatures:
            found = self._ask({"describe": name}, name)
            names, required, defaults = found["names"], found["required"], found["defaults"]
            assert isinstance(names, list) and isinstance(required, list) and isinstance(defaults, dict)
            self._signatures[name] = Signature(
                tuple(names), tuple(required), defaults, found["weight_decay"], bool(found["takes_weight_decay"])
            )
        return self._signatures[name]

    def try_runs(self, configs: list[RunConfig]) -> None:
        """Builds each optimizer that is imported, with its settings. Raises UserError for one that refuses them."""
        seen: list[object] = []
        for config in configs:
            if config.optimizer.imported is None:
                continue
            raw = to_dict(config)
            parts = [raw["optimizer"], raw["model"], raw["data"]]
            if parts not in seen:
                seen.append(parts)
                self._ask({"try": raw}, config.optimizer.imported)

    def _ask(self, request: Mapping[str, object], name: str) -> dict[str, object]:
        child = self._started()
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            child.wait()
            self._stderr.seek(0)
            last = (self._stderr.read().strip().splitlines() or [f"exit code {child.returncode}"])[-1]
            raise UserError(f"optimizer={name}: ends the process that tries it ({last}); correct it")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        if "error" in answer:
            raise UserError(str(answer["error"]))
        return answer

    def _started(self) -> subprocess.Popen[str]:
        if self._child is None:
            # -P: like a job on a cluster, which does not find a module because it lies in the current folder.
            command = [sys.executable, "-P", "-m", "adarem.train.try_optimizer"]
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True
            )
        return self._child


def complete(optimizer: dict[str, object], name: str, signature: Signature) -> None:
    """Adds to a composed ``optimizer`` section, in place, the defaults of its class, so that a run's config says all.

    Args:
        name: where the optimizer is imported from.

    Raises:
        UserError: no learning rate, an unknown setting, one that is missing.
    """
    own = [k for k in optimizer if k not in ("name", "label", "class", "lr", "weight_decay", "no_decay")]
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
        optimizer.setdefault(key, value)
