"""Networks that are imported or of a library, checked in a child process before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass

from adarem.plan.child_process import ChildProcess, distinct
from adarem.run.build import nearest, own_keys
from adarem.run.catalog import NETWORKS
from adarem.run.config import DataConfig, ModelConfig, RunConfig, to_dict
from adarem.run.errors import UserError
from adarem.run.imported_names import GIVEN, plain
from adarem.run.text_models import LmConfig

# Keys of a config's section that are no settings of a signature, by the kind of the network.
_OWN_KEYS = {kind: own_keys(cls) for kind, cls in (("images", ModelConfig), ("text", LmConfig))}

# Side in pixels up to which the catalog's networks for images end in maps of one pixel, on which BatchNorm of a single
# image has nothing to normalise over. At any other size and batch they fit.
_ONE_PIXEL = 32


@dataclass(frozen=True)
class NetworkSignature:
    """The settings of a network's function or class."""

    names: tuple[str, ...]
    required: tuple[str, ...]
    defaults: Mapping[str, object]


class NetworkChecks:
    """What the child process finds out, each thing once."""

    def __init__(self, child: ChildProcess) -> None:
        self._child = child
        self._signatures: dict[tuple[str, str], NetworkSignature] = {}

    def signature(self, name: str, kind: str) -> NetworkSignature:
        """Raises UserError for a network that cannot be imported or is none."""
        if (name, kind) not in self._signatures:
            found = self._child.ask({"describe_network": name, "given": GIVEN[kind]}, f"model={name}")
            names, required, defaults = found["names"], found["required"], found["defaults"]
            assert isinstance(names, list) and isinstance(required, list) and isinstance(defaults, dict)
            self._signatures[name, kind] = NetworkSignature(tuple(names), tuple(required), defaults)
        return self._signatures[name, kind]

    def try_runs(self, configs: list[RunConfig]) -> None:
        """One pass through each distinct network at each distinct size. Raises UserError where one does not fit."""
        for config in distinct((c for c in configs if not _known_to_fit(c)), lambda c: (c.model, _sizes(c))):
            self._child.ask({"try_network": to_dict(config)}, f"model={config.model.name}")


def _known_to_fit(config: RunConfig) -> bool:
    d = config.data
    if config.model.name not in NETWORKS:
        return False
    batch = config.scale.images_per_pass(config.cluster.world_size)
    return not isinstance(d, DataConfig) or batch > 1 or d.train_crop > _ONE_PIXEL


def _sizes(config: RunConfig) -> tuple[int, ...]:
    d, world_size = config.data, config.cluster.world_size
    of_batch = (config.scale.images_per_pass(world_size), world_size)
    of_data = (d.num_classes, d.train_crop, d.eval_crop) if isinstance(d, DataConfig) else (d.vocabulary,)
    return *of_data, *of_batch


def complete_network(model: dict[str, object], name: str, signature: NetworkSignature) -> None:
    """Adds to a composed ``model`` section, in place, the defaults of its function, so that a run's config says all.

    Args:
        name: where the network is imported from.

    Raises:
        UserError: an unknown setting, or one that is missing.
    """
    kind = str(model["kind"])
    if kind not in GIVEN:
        raise UserError(f"model.kind={kind}: {nearest(kind, GIVEN)}")
    for key in model:
        if key not in (*_OWN_KEYS[kind], *signature.names):
            if key in GIVEN[kind]:
                raise UserError(f"model.{key}: is given by the data; leave it out")
            hint = nearest(key, signature.names) if signature.names else "it has none"
            raise UserError(f"model.{key}: {name} names no such setting; {hint}")
    for key in signature.required:
        if key not in model:
            raise UserError(f"model.{key}: {name} has no default for it; give it, model.{key}=...")
    for key, value in signature.defaults.items():
        model.setdefault(key, value)


def check_label(name: str, label: str) -> None:
    """Raises UserError where a network bears the name of another that the catalog knows."""
    for of_catalog, network in NETWORKS.items():
        if of_catalog != name and plain(network.label) == plain(label):
            raise UserError(
                f"model.label={label}: is how {of_catalog} is printed, and this is {name}; leave the label out, or "
                "give another"
            )
