"""AdaRem and AdaRem-S by name in timm's optimizer factory."""

from adarem.optim.adarem import AdaRem
from adarem.optim.adarem_s import AdaRemS


def register_timm() -> None:
    """Registers ``adarem`` and ``adarems`` with timm, for ``timm.optim.create_optimizer_v2(model, opt="adarem")``.

    timm takes what follows the last underscore for the name, so ``adarem_s`` cannot be one. timm's own parameter
    groups know no sphere: give ``param_group_fn=lambda m: param_groups(m, example_input, weight_decay=...)`` with
    ``adarems``, else it is AdaRem. Calling twice is harmless.
    """
    from timm.optim._optim_factory import OptimInfo, default_registry, list_optimizers

    for name, cls, what in (
        ("adarem", AdaRem, "AdaRem: each element's rate follows its gradient's agreement with its moving average"),
        ("adarems", AdaRemS, "AdaRem-S: AdaRem with the scale-invariant weights on a sphere"),
    ):
        if name not in list_optimizers():
            default_registry.register(OptimInfo(name=name, opt_class=cls, description=what))
