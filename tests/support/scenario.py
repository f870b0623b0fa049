"""One awkward training, by an optimizer of the package and, next to it, by the reference in float64.

Parameters: a matrix, a channels_last weight, a transposed view, a strided view, one element, a scalar and an empty one,
in two groups with unlike settings, of which one changes midway, a third group that joins later; one is frozen, one has
no gradient on every third step. ``python -m tests.support.scenario [triton]`` prints the table of largest errors in
docs/optimizers.md.
"""

import math
import sys

import torch

from adarem import AdaRem, AdaRemS
from adarem.optim import reference

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
VARIANTS = {
    "AdaRem": {},
    "AdaRem, eps": {"eps": 1e-3},
    "AdaRem, model scope": {"scope": "model"},
    "AdaRem, maximize": {"maximize": True},
    "AdaRem-S": {"sphere": "model"},
    "AdaRem-S, sphere a tensor": {"sphere": "tensor"},
    "AdaRem-S, radius": {"sphere": "model", "radius": 3.0},
    "AdaRem-S, no SLR": {"sphere": "tensor", "slr": False},
}
IMPLEMENTATIONS = {
    "single": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
# Of the largest value of a tensor. float64, float32: a few times what scenario.py prints. 16 bits: two roundings of the
# type, for the step and for the way back to the sphere.
TOLERANCE = {
    torch.float64: {"param": 1e-14, "exp_avg": 1e-14, "max": 1e-14, "alpha": 1e-14},
    torch.float32: {"param": 5e-6, "exp_avg": 2e-6, "max": 2e-6, "alpha": 2e-6},
    torch.bfloat16: {"param": 2**-7, "exp_avg": 2e-6, "max": 2e-6, "alpha": 2**-8},
    torch.float16: {"param": 2**-10, "exp_avg": 2e-6, "max": 2e-6, "alpha": 2**-11},
}


def make_params(dtype, draw):
    def values(*shape):
        return torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)

    tensors = [
        values(7, 5),
        values(4, 3, 3, 3).to(memory_format=torch.channels_last),
        values(6, 4).t(),
        values(5, 6)[:, ::2],  # gaps in memory
        values(1),
        values(),
        values(0, 3),
        values(9),
    ]
    return [t.detach().requires_grad_() for t in tensors]


def flat(t):
    return t.detach().double().flatten().tolist()


def run(variant, implementation, dtype, steps=300):
    """Largest errors of parameters and state against the reference, relative to the largest value of each tensor.

    The gradients are given, not computed: m and alpha run freely for all steps. Parameters of 16 bits are handed to the
    reference before every step, alpha too, for else the error would be the random walk of their rounding.
    """
    draw = torch.Generator().manual_seed(1)
    params = make_params(dtype, draw)
    late = torch.randn(3, 2, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    settings = {"lr": 0.05, "lam": 0.999, "decay_every": 1, "weight_decay": 0.02, **VARIANTS[variant]}
    other = {"lr": 0.02, "beta": 0.99, "lam": 0.9, "decay_every": 7, "weight_decay": 0.0}
    spherical = variant.startswith("AdaRem-S")
    first = {"spherical": True} if spherical else {}
    exact = {p: p.detach().double().clone().requires_grad_() for p in [*params, late]}
    cls, exact_cls = (AdaRemS, reference.AdaRemS) if spherical else (AdaRem, reference.AdaRem)
    groups = [{"params": params[:4], **first}, {"params": params[4:], **other}]
    exact_groups = [{**group, "params": [exact[p] for p in group["params"]]} for group in groups]
    optimizer = cls(groups, **settings, **IMPLEMENTATIONS.get(implementation, {"fused": True}))
    truth = exact_cls(exact_groups, **settings)
    frozen = params[7]
    for p in (frozen, exact[frozen]):
        p.requires_grad_(False)
    trained = [*params]
    worst = {"param": 0.0, "exp_avg": 0.0, "max": 0.0, "alpha": 0.0}
    recent: dict = {}
    for step in range(steps):
        if step == steps // 2:
            for o in (optimizer, truth):
                o.param_groups[1]["decay_every"] = 4
        if step == steps // 3:
            optimizer.add_param_group({"params": [late], "lr": 0.01})
            truth.add_param_group({"params": [exact[late]], "lr": 0.01})
            trained.append(late)
        for p in trained:
            size = 10.0 ** torch.randint(-3, 2, (), generator=draw).item()
            g = torch.randn(p.shape, generator=draw, dtype=torch.float64) * size
            g[torch.rand(p.shape, generator=draw) < 0.1] = 0.0
            skipped = p is frozen or (p is params[1] and step % 3 == 2 and not spherical)
            p.grad = None if skipped else g.to(dtype)
            exact[p].grad = None if skipped else p.grad.double()
        if dtype.itemsize == 2:
            for p in trained:
                exact[p].data.copy_(p)
                of_sphere = {k: v.clone() for k, v in optimizer.state.get(p, {}).items() if k in ("alpha", "radius")}
                truth.state[exact[p]].update(of_sphere)
        optimizer.step()
        truth.step()
        for p in trained:
            compare(worst, recent, optimizer.state.get(p, {}), p, truth.state.get(exact[p], {}), exact[p])
    return worst


def compare(worst, recent, state, p, exact_state, exact):
    def note(key, got, expected):
        # Of the largest value lately: a moving average that passes through zero has no relative error there.
        scale = max((abs(x) for x in expected), default=0.0)
        scale = recent[key, id(p)] = max(scale, 0.98 * recent.get((key, id(p)), 0.0))
        for a, b in zip(got, expected, strict=True):
            error = abs(a - b) / scale if scale else abs(a)
            worst[key] = max(worst[key], error if math.isfinite(error) else math.inf)

    note("param", flat(p), flat(exact))
    if "exp_avg" in state:
        m = exact_state.get("m", torch.zeros_like(exact))  # the reference makes state at a parameter's first step
        note("exp_avg", flat(state["exp_avg"]), flat(m))
        note("max", [state["exp_avg_max"].item()], [m.abs().max().item()])
    if "alpha" in state:
        note("alpha", [state["alpha"].item()], [exact_state["alpha"].item()])


def use_triton():
    """Sends fused steps of CPU tensors to the Triton kernels; needs TRITON_INTERPRET=1 from the start."""
    from adarem.optim.kernels import cpu, triton_step

    triton_step._BLOCK, triton_step._CHUNK = 16, 32  # several chunks a tensor, several blocks a chunk
    cpu.fused_step = triton_step.fused_step
    # The interpreter cuts bfloat16 off where hardware rounds: twice the error.
    TOLERANCE[torch.bfloat16] = {k: 2 * v for k, v in TOLERANCE[torch.bfloat16].items()}


if __name__ == "__main__":
    chosen, steps = IMPLEMENTATIONS, 300
    if sys.argv[1:2] == ["triton"]:
        use_triton()
        chosen, steps = ("triton",), int(sys.argv[2])
    print("| implementation | dtype | θ | m | max m | α |")
    print("| --- | --- | --- | --- | --- | --- |")
    failed = False
    for implementation in chosen:
        for dtype in DTYPES:
            worst = dict.fromkeys(TOLERANCE[dtype], 0.0)
            for variant in VARIANTS:
                for key, value in run(variant, implementation, dtype, steps).items():
                    worst[key] = max(worst[key], value)
                    if not value <= TOLERANCE[dtype][key]:
                        failed = True
                        print(f"{variant}, {implementation}, {dtype}: {key} is off by {value:.1e}", file=sys.stderr)
            print(f"| {implementation} | {str(dtype)[6:]} | " + " | ".join(f"{v:.0e}" for v in worst.values()) + " |")
    sys.exit(failed)
