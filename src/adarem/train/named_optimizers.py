"""Optimizers by where they are imported from: a class of torch.optim, timm or any package, or a factory.

Only parameters that a signature names are settings. Most classes of some libraries swallow ``**kwargs``, so a misspelt
setting would pass unnoticed.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn
from torch.optim import Optimizer

from adarem.optim import param_groups
from adarem.run.build import nearest
from adarem.run.config import OptimizerConfig
from adarem.run.errors import UserError
from adarem.run.imported_names import TIMM, TORCH
from adarem.run.sweep import setting_text
from adarem.train.imported import Source, imported, nearest_of, source_of

# What a factory is given next to the settings, where its signature names it.
GIVEN_TO_FACTORIES = ("lr", "weight_decay", "steps_per_epoch", "total_steps")

NO_CLOSURE = "needs a closure that computes the gradients again, which this trainer does not give; take another"


@dataclass(frozen=True)
class NamedOptimizer:
    """A class, or a factory ``make(model, *, lr, weight_decay, steps_per_epoch, total_steps, ...)``; its settings."""

    name: str
    make: Callable[..., object]
    is_factory: bool
    settings: Mapping[str, object]  # every keyword that the signature names, with its default; inspect.Parameter.empty
    fixed: Mapping[str, object] = field(default_factory=dict)  # what a library's name stands for next to the class


def load_named(name: str) -> NamedOptimizer:
    """The optimizer that ``name`` says, unbuilt.

    Raises:
        UserError: its module cannot be imported, has no such name, or it is neither an optimizer's class nor a factory.
    """
    head, _, own = name.partition(":")
    if head == TIMM:
        found, fixed = _of_timm(name, own)
    else:
        found, fixed = imported("optimizer", name, "torch.optim" if head == TORCH else head, own, Optimizer), {}
    if inspect.isclass(found):
        if not issubclass(found, Optimizer) or found is Optimizer:
            raise UserError(f"optimizer={name}: {found.__name__} is no subclass of torch.optim.Optimizer; name one")
    elif not callable(found):
        raise UserError(
            f"optimizer={name}: neither a class nor a function but {type(found).__name__}; name an optimizer's class, "
            "or a function that makes an optimizer"
        )
    if isinstance(found, type) and _wants_closure(found):
        raise UserError(f"optimizer={name}: {NO_CLOSURE}")
    is_factory = not inspect.isclass(found)
    _, *rest = _parameters(name, found)
    settings = {
        p.name: fixed.get(p.name, p.default) for p in rest if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    return NamedOptimizer(name, found, is_factory, settings, fixed)


def _of_timm(name: str, own: str) -> tuple[Callable[..., object], Mapping[str, object]]:
    """timm's own names, with what they stand for next to the class: ``sgd`` is SGD with Nesterov's momentum."""
    try:
        factory = importlib.import_module("timm.optim")
    except ModuleNotFoundError:
        raise UserError(f"optimizer={name}: no module timm can be imported; install it, pip install timm") from None
    known: list[str] = factory.list_optimizers()
    if own not in known:
        raise UserError(f"optimizer={name}: timm has no {own}; {nearest_of(own, known)}")
    made: Callable[..., object] = factory.get_optimizer_class(own, bind_defaults=False)
    return made, dict(factory.get_optimizer_info(own).defaults or {})


def _wants_closure(cls: type) -> bool:
    """Whether its step cannot do without a closure, by its signature or by what it says when it has none."""
    step = getattr(cls, "step", None)
    if step is None:
        return False
    _, *rest = inspect.signature(step).parameters.values()
    if any(p.name == "closure" and p.default is p.empty for p in rest):
        return True
    try:
        step(object.__new__(cls))
    except Exception as e:  # an object that was never initialised fails somewhere: what counts is at what
        return "closure" in f"{type(e).__name__} {e}".lower()
    return False


def _parameters(name: str, found: Callable[..., object]) -> list[inspect.Parameter]:
    """Those of the signature, the parameters or the model first."""
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except (ValueError, TypeError):
        raise UserError(
            f"optimizer={name}: has no signature that can be read; wrap it in a function of yours"
        ) from None
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise UserError(f"optimizer={name}: takes no parameters or model as its first argument; wrap it in a function")
    if "lr" not in {p.name for p in parameters}:
        raise UserError(
            f"optimizer={name}: names no lr in its signature, which the schedule sets; wrap it in a function"
        )
    return parameters


def build_named(
    named: NamedOptimizer,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    hparams: Mapping[str, object],
    steps_per_epoch: int,
    total_steps: int,
    decay_norm_and_bias: bool = True,
    no_decay: Sequence[str] = (),
) -> Optimizer:
    """Builds it over the trainable parameters of ``model``.

    Args:
        lr: base learning rate; the schedule multiplies each group's own.
        weight_decay: passed on where the signature names it.
        hparams: settings that the signature names.
        total_steps: of the run; like ``steps_per_epoch`` for factories that name it.
        decay_norm_and_bias: False gives a class's parameters of at most one dimension a weight decay of 0. A factory
            sees to that itself.
        no_decay: kinds of a class's parameters with a weight decay of 0, see ``optim.param_groups``.

    Raises:
        UserError: an unknown setting, with the nearest valid one; ``no_decay`` for a factory or a class without weight
            decay; the factory returned no optimizer.
        Exception: whatever the class or the factory raises.
    """
    check_settings(named, hparams)
    kinds = f"optimizer.no_decay={setting_text(no_decay)}"
    if no_decay and named.is_factory:
        raise UserError(
            f"{kinds}: {named.name} is a function, which makes its groups itself; leave it out, and "
            "give these groups a weight_decay of 0 in the function"
        )
    if no_decay and "weight_decay" not in named.settings:
        raise UserError(f"{kinds}: {named.name} names no weight_decay; leave it out")
    given = {"lr": lr, "weight_decay": weight_decay, "steps_per_epoch": steps_per_epoch, "total_steps": total_steps}
    passed = GIVEN_TO_FACTORIES if named.is_factory else ("lr", "weight_decay")
    keywords = {**named.fixed, **{k: given[k] for k in passed if k in named.settings}, **hparams}
    if named.is_factory:
        made = named.make(model, **keywords)
        if not isinstance(made, Optimizer):
            raise UserError(
                f"optimizer={named.name}: returns {type(made).__name__}, no torch.optim.Optimizer; return one"
            )
        return made
    groups: object = [p for p in model.parameters() if p.requires_grad]
    if (no_decay or not decay_norm_and_bias) and "weight_decay" in named.settings:
        own = param_groups(model, weight_decay=weight_decay, decay_norm_and_bias=decay_norm_and_bias, no_decay=no_decay)
        groups = [{"params": group["params"], "weight_decay": group["weight_decay"]} for group in own]
    optimizer = named.make(groups, **keywords)
    assert isinstance(optimizer, Optimizer)
    return optimizer


def check_settings(named: NamedOptimizer, hparams: Mapping[str, object]) -> None:
    """Raises UserError for a setting that the signature does not name, with the nearest that it does."""
    for key in hparams:
        if key not in named.settings:
            raise UserError(f"optimizer.{key}: {named.name} names no such setting; {nearest(key, named.settings)}")


def source_of_optimizer(config: OptimizerConfig) -> Source | None:
    """Where a run's optimizer comes from; None for those of the catalog."""
    return None if config.imported is None else source_of(config.imported, load_named(config.imported).make)
