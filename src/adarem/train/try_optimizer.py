"""Optimizers that are imported, tried by the child process of `adarem plan`: the settings of a signature, two steps."""

import inspect
import io
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

from adarem.run.config import RunConfig
from adarem.run.errors import UserError
from adarem.run.text_models import LstmConfig
from adarem.train.evaluation_point import Modes, modes_of
from adarem.train.imported import first_line, plain_defaults
from adarem.train.models.build import build_network
from adarem.train.named_optimizers import GIVEN_TO_FACTORIES, NO_CLOSURE, NamedOptimizer, build_named, load_named

_STEPS = 2  # the second meets the state that the first made


class _Plain(nn.Module):
    """Parameters of every number of dimensions that networks have."""

    def __init__(self, dimensions: tuple[int, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        sizes = (4, 6, 3, 3)
        self.weights = nn.ParameterList(torch.randn(sizes[:n], generator=generator) for n in dimensions)


def describe(name: str) -> dict[str, object]:
    """The settings of a signature: those with a default that YAML can hold, those without, and all names."""
    named = load_named(name)
    reserved = GIVEN_TO_FACTORIES if named.is_factory else ("lr", "weight_decay")
    empty = inspect.Parameter.empty
    plain = plain_defaults(named.settings)
    return {
        "names": list(named.settings),
        "required": [k for k, v in named.settings.items() if v is empty and k not in reserved],
        "defaults": {k: v for k, v in plain.items() if k not in reserved},
        "weight_decay": plain.get("weight_decay"),
        "takes_weight_decay": "weight_decay" in named.settings,
        "averages": not named.is_factory and modes_of(named.make) is not None,
    }


def try_config(config: RunConfig) -> str | None:
    """Builds the run's optimizer and takes steps with it: a class over small tensors of all kinds, a factory over the
    run's network.

    Returns:
        What a person should know of it, in one line.

    Raises:
        UserError: it cannot be built or does not step; in its own words.
    """
    o = config.optimizer
    assert o.imported is not None
    named = load_named(o.imported)
    network = build_network(config) if named.is_factory else _Plain((1, 2, 3, 4))
    try:
        optimizer = _build_and_step(named, config, network)
    except UserError:
        raise
    except Exception as e:
        first = first_line(e)
        if "closure" in f"{type(e).__name__} {first}".lower():
            raise UserError(f"optimizer={o.imported}: {NO_CLOSURE}") from None
        if not named.is_factory and _works_in_two_dimensions(named, config):
            raise UserError(
                f"optimizer={o.imported}: takes parameters of two dimensions only ({first}); write a factory that "
                "gives the others to another optimizer (docs/own-optimizer.md)"
            ) from None
        raise UserError(f"optimizer={o.imported}: refuses its settings ({first}); correct optimizer.*") from None
    if named.is_factory and modes_of(optimizer) is not None and config.schedule.name != "constant":
        return (
            f"optimizer={o.imported}: averages by itself, and its rate follows the {config.schedule.name} schedule; "
            "schedule: {name: constant} in a file of its own keeps it constant"
        )
    return None


def _works_in_two_dimensions(named: NamedOptimizer, config: RunConfig) -> bool:
    try:
        _build_and_step(named, config, _Plain((2, 2)))
    except Exception:
        return False
    return True


def _build_and_step(named: NamedOptimizer, config: RunConfig, network: nn.Module) -> Optimizer:
    o = config.optimizer
    optimizer = build_named(
        named, network, lr=o.lr * config.scale.lr_factor, weight_decay=o.weight_decay, hparams=o.hparams,
        steps_per_epoch=10, total_steps=10 * config.scale.epochs, decay_norm_and_bias=config.train.decay_norm_and_bias,
        no_decay=o.no_decay,
    )  # fmt: skip
    _check_groups(named, optimizer, network)
    generator = torch.Generator().manual_seed(0)

    def steps() -> None:
        for _ in range(_STEPS):
            for p in network.parameters():
                p.grad = 0.01 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
            optimizer.step()

    if (modes := modes_of(optimizer)) is not None:
        if isinstance(config.model, LstmConfig) and config.model.average_after:
            raise UserError(
                f"model.average_after={config.model.average_after}: {named.name} averages by itself; give "
                "model.average_after=0"
            )
        _switch(named, modes.train)
        steps()
        _check_modes(named, modes, list(network.parameters()))
    steps()
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    try:
        optimizer.load_state_dict(torch.load(buffer, weights_only=True))
    except Exception as e:
        first = first_line(e)
        raise UserError(
            f"optimizer={named.name}: its state cannot be read back from a checkpoint ({first}); keep tensors, numbers "
            "and text in it"
        ) from None
    return optimizer


def _switch(named: NamedOptimizer, mode: Callable[[], object]) -> None:
    try:
        mode()
    except Exception as e:
        raise UserError(
            f"optimizer={named.name}: its train() or eval() fails ({first_line(e)}), so it cannot be evaluated; take "
            "another"
        ) from None


def _check_modes(named: NamedOptimizer, modes: Modes, parameters: list[nn.Parameter]) -> None:
    """Raises UserError where eval() gives no point to evaluate at, or train() does not lead back from it."""
    before = [p.detach().clone() for p in parameters]
    _switch(named, modes.eval)
    if not all(bool(p.isfinite().all()) for p in parameters):
        raise UserError(f"optimizer={named.name}: its eval() leaves parameters that are not finite; take another")
    _switch(named, modes.train)
    if not all(torch.allclose(p, kept, rtol=1e-3, atol=1e-3) for p, kept in zip(parameters, before, strict=True)):
        raise UserError(f"optimizer={named.name}: its train() does not lead back from its eval(); take another")


def _check_groups(named: NamedOptimizer, optimizer: Optimizer, network: nn.Module) -> None:
    trainable = {id(p): name for name, p in network.named_parameters() if p.requires_grad}
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    if missing := [name for i, name in trainable.items() if i not in held]:
        raise UserError(
            f"optimizer={named.name}: leaves {len(missing)} of {len(trainable)} parameters out, {missing[0]} among "
            "them; give it all that require a gradient"
        )
    if not all("lr" in group for group in optimizer.param_groups):
        raise UserError(f"optimizer={named.name}: has a parameter group without lr, which the schedule sets; add one")
