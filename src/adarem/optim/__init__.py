"""AdaRem and AdaRem-S for ``torch.optim``; needs torch alone.

As in torch.optim, the functional forms are in the modules of their classes: ``adarem.optim.adarem.adarem``.
"""

from adarem.optim.adarem import AdaRem
from adarem.optim.adarem_s import AdaRemS
from adarem.optim.groups import param_groups, scale_invariant
from adarem.optim.timm_registry import register_timm
from adarem.optim.watch import agreement

__all__ = [
    "AdaRem",
    "AdaRemS",
    "agreement",
    "param_groups",
    "register_timm",
    "scale_invariant",
]
