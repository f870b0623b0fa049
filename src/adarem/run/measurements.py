"""What `adarem probe` measured: how fast a network trains with an optimizer, on which machine; ``runs/probe.json``.

An entry counts for a config only where all that decides its speed is the same: network, optimizer, data, batch,
precision, ranks, the machine and torch's version. Learning rates, seeds and other plain numbers decide nothing.
"""

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adarem.run import locks
from adarem.run.build import build
from adarem.run.catalog import OPTIMIZERS
from adarem.run.config import ClusterConfig, RunConfig
from adarem.run.errors import UserError
from adarem.run.files import read_json, write_atomically
from adarem.run.identity import identity
from adarem.run.machine import cores, cpu_name, gpu_names
from adarem.run.setting import Range

FORMAT = 1
PATIENCE_SECONDS = 30.0  # with another probe that writes the file at this moment
# Of the data these change neither what is computed nor how many images an epoch has.
_NOT_OF_SPEED = ("data.label", "data.holdout_seed", "data.split_seed", "data.expected_train", "data.expected_val",
                 "data.expected_test", "model.label", "model.init_sha256")  # fmt: skip
_OF_TRAINING = ("channels_last", "compile", "deterministic", "oscillation")
_WHERE_THEY_RUN = ("device", "nodes", "ranks_per_node", "threads_per_rank")
MICRO_BATCH = "scale.micro_batch_size"

Subject = Mapping[str, object]


@dataclass(frozen=True)
class Measurement:
    """One network with one optimizer. Seconds are of the wall clock; CPU seconds are summed over the ranks."""

    subject: Mapping[str, object]  # see `subject`
    machine: Mapping[str, object]  # see `machine`
    torch: str  # its version
    device: str  # the GPU's name, or "cpu"
    cpu: str  # the processor's name, of rank 0's host
    hosts: tuple[str, ...]
    date: str  # UTC
    load: float  # average number of busy cores on rank 0's host in the minute before
    unit: Literal["images", "tokens"]
    ranks: int
    units_per_s: float  # in training, over all ranks
    loader_share: float  # of training's time that ranks wait for data
    memory_bytes: int  # of the rank that takes most: GPU memory allocated, on the CPU the process
    checkpoint_bytes: int
    first_step_seconds: float  # from the command to the end of the first step
    before_record_seconds: float  # from the command to what a run would record as the start of an attempt
    start_seconds: float  # from the command to steady training, and from its end to the command's
    start_cpu_seconds: float
    steps_per_epoch: int
    epoch_seconds: float  # training and what checkpoints hold it up, without evaluation
    epoch_cpu_seconds: float
    evaluated: int  # images or tokens
    evaluation_seconds: float
    evaluation_cpu_seconds: float
    steps: int  # measured, without those that warm up
    chunks: int  # of steps, whose median counts
    epochs: int  # complete ones, whose median counts where there are three
    largest_micro_batch_size: int | None = None  # that fits; None: not asked for

    @property
    def units_per_s_of_a_rank(self) -> float:
        return self.units_per_s / self.ranks

    @property
    def cpu_seconds_per_unit(self) -> float:
        """CPU seconds of all ranks for one image or token of training, checkpoints included."""
        return self.epoch_cpu_seconds / (self.units_per_s * self.epoch_seconds)

    @property
    def evaluated_per_s(self) -> float:
        return self.evaluated / self.evaluation_seconds


def subject(config: RunConfig) -> dict[str, object]:
    """What decides a run's speed, by dotted key."""
    flat = identity(config)
    found = {k: v for k, v in flat.items() if k.split(".")[0] in ("data", "model") and k not in _NOT_OF_SPEED}
    found |= {k: v for k, v in flat.items() if k in ("optimizer.name", "optimizer.class")}
    known = OPTIMIZERS.get(config.optimizer.name)
    for key, value in config.optimizer.hparams.items():
        plain = isinstance(known.hparams[key].allowed, Range) if known else isinstance(value, float)
        if not plain and not isinstance(value, tuple | list):
            found[f"optimizer.{key}"] = value
    if (workers := getattr(config.data, "workers", None)) is not None:
        found["data.workers"] = workers
    scale, train, cluster = config.scale, config.train, config.cluster
    found["scale.global_batch_size"], found["scale.precision"] = scale.global_batch_size, scale.precision
    found[MICRO_BATCH] = scale.images_per_pass(cluster.world_size)
    found |= {f"train.{key}": getattr(train, key) for key in _OF_TRAINING}
    found["train.clips"] = bool(train.clip_grad_norm)
    found |= {f"cluster.{key}": getattr(cluster, key) for key in _WHERE_THEY_RUN}
    plain_form: dict[str, object] = json.loads(json.dumps(found))  # as the file gives it back
    return plain_form


def machine(cluster: ClusterConfig) -> dict[str, object]:
    """Where runs of this cluster compute: this machine by its hardware, Slurm's nodes by what jobs ask for."""
    if cluster.name == "slurm":
        return {"cluster": "slurm", "partition": cluster.partition, "extra": list(cluster.extra)}
    found: dict[str, object] = {"cluster": "local", "cpu": cpu_name(), "cores": cores()}
    return {**found, "gpus": gpu_names()} if cluster.device == "cuda" else found


def torch_version() -> str:
    """Of the installed torch, which is not imported."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def probe_file(runs_dir: Path) -> Path:
    """Where the measurements of all grids with this folder of runs are."""
    return runs_dir / "probe.json"


def read_measurements(runs_dir: Path) -> list[Measurement]:
    """Every entry of the file; none where there is no file.

    Raises:
        UserError: the file is damaged or of another format.
    """
    path = probe_file(runs_dir)
    raw = read_json(path)
    if raw is None:
        return []
    entries = raw.get("measurements")
    if raw.get("format") != FORMAT or not isinstance(entries, list):
        raise UserError(f"{path}: not measurements of format {FORMAT}; remove it and measure again")
    try:
        return [build(Measurement, entry) for entry in entries]
    except UserError as e:
        raise UserError(f"{path}: {e}; remove it and measure again") from None


def keep_measurement(runs_dir: Path, new: Measurement) -> None:
    """Adds an entry to the file, in place of an earlier one of the same subject on the same machine."""
    path = probe_file(runs_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locks.hold(path.with_name(".probe.lock"), patience=PATIENCE_SECONDS):
        others = [m for m in read_measurements(runs_dir) if (m.subject, m.machine) != (new.subject, new.machine)]
        entries = [dataclasses.asdict(m) for m in (*others, new)]
        write_atomically(path, json.dumps({"format": FORMAT, "measurements": entries}, indent=1) + "\n")


class Measurements:
    """The entries that count on this machine and under this torch."""

    def __init__(self, entries: Sequence[Measurement]) -> None:
        self._entries = entries
        self._machines: dict[ClusterConfig, dict[str, object]] = {}

    def of(self, config: RunConfig) -> Measurement | None:
        """What was measured for a config; None where nothing that counts was."""
        wanted = subject(config)
        return next((m for m in self._entries if m.subject == wanted and self._counts(m, config)), None)

    def largest_micro_batch_size(self, config: RunConfig) -> int | None:
        """The largest that fits, of a config without one; None where it was not measured."""
        wanted = _but_passes(subject(config))
        sizes = [
            m.largest_micro_batch_size
            for m in self._entries
            if m.largest_micro_batch_size and _but_passes(m.subject) == wanted and self._counts(m, config)
        ]
        return sizes[-1] if sizes else None

    def elsewhere(self, config: RunConfig) -> str | None:
        """Why an entry of the same subject does not count, in words; None where there is none."""
        wanted = subject(config)
        for m in self._entries:
            if m.subject == wanted and m.machine != self._machine(config.cluster):
                return f"measured on {' '.join(map(str, m.hosts))} ({m.cpu if m.device == 'cpu' else m.device})"
            if m.subject == wanted and m.torch != torch_version():
                return f"measured with torch {m.torch}"
        return None

    def _counts(self, m: Measurement, config: RunConfig) -> bool:
        return m.torch == torch_version() and m.machine == self._machine(config.cluster)

    def _machine(self, cluster: ClusterConfig) -> dict[str, object]:
        if cluster not in self._machines:
            self._machines[cluster] = machine(cluster)
        return self._machines[cluster]


def _but_passes(what: Subject) -> dict[str, object]:
    return {k: v for k, v in what.items() if k != MICRO_BATCH}
