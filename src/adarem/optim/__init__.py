"""AdaRem and AdaRem-S for ``torch.optim``; needs torch alone."""

from adarem.optim.adarem import AdaRem, adarem
from adarem.optim.adarem_s import AdaRemS, adarems
from adarem.optim.groups import param_groups, scale_invariant
from adarem.optim.table import OPTIMIZERS, build_optimizer
from adarem.optim.timm_registry import register_timm

__all__ = [
    "OPTIMIZERS",
    "AdaRem",
    "AdaRemS",
    "adarem",
    "adarems",
    "build_optimizer",
    "param_groups",
    "register_timm",
    "scale_invariant",
]
