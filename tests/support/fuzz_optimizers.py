"""Random trainings with random faults, by single, foreach and fused: equal results, or one clear line.

``python -m tests.support.fuzz_optimizers --cases 10000 --seed 0`` prints counts, and the cases that fail. The cases run
in child processes, so that one that kills its process is counted and the others go on. A case fails if it crashes or
hangs, if implementations disagree, or if a refusal is not one line of an allowed type or leaves something changed.
"""

import argparse
import collections
import copy
import json
import math
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.support import ROOT

FLAGS: dict[str, dict[str, Any]] = {
    "single": {"foreach": False, "fused": None},
    "foreach": {"foreach": True, "fused": None},
    "fused": {"foreach": None, "fused": True},
}
TOLERANCE = {"torch.float64": 1e-9, "torch.float32": 1e-3, "torch.bfloat16": 0.1, "torch.float16": 0.02}
BATCH = 100  # cases of one child
SECONDS = 60  # of the processor's time for one case, after which it counts as hung; of any time ten times as many


class Outcome(NamedTuple):
    """Of one case."""

    case: int
    verdict: str  # agreed, refused, difference, unclear, changed, crash
    note: str


class Refusal(NamedTuple):
    step: int
    line: str
    fused: bool  # whether a fused step refused
    flaw: str  # what is wrong with the refusal; empty where it is as it must be


def trace(case: int, seed: int, implementation: str) -> tuple[list[Any], Refusal | None]:
    """Values after each step, up to the step that was refused; the same case for each implementation."""
    import torch

    draw, numbers = random.Random(f"{seed} {case}"), torch.Generator().manual_seed(seed * 1_000_003 + case)
    optimizer = _build(draw, numbers, implementation)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    history: list[Any] = []
    faulty = draw.random() < 0.75
    seen = {str(p.dtype) for p in params}
    condition = 1.0
    for step in range(draw.choice([2, 3, 4, 5, 6, 7])):  # from the fourth on a step remembers the last check
        _give_gradients(params, draw, numbers)
        scale = draw.choice([2.0, 0.5, 1024.0]) if draw.random() < 0.1 else None
        before, freed = None, False
        try:
            if step and faulty and draw.random() < 0.7:
                for _ in range(draw.choice([1, 1, 2])):
                    if _disturb(optimizer, params, draw, numbers) == "free":
                        scale, freed = None, True
                        break  # torch itself would read what is not there
            if scale is not None:
                _scale(optimizer, params, scale)
            before = None if freed else copy.deepcopy(_values(optimizer, params))
            condition = max(condition, _condition(optimizer))
            optimizer.step()
            for name in ("grad_scale", "found_inf"):
                optimizer.__dict__.pop(name, None)
        except (RuntimeError, ValueError, TypeError, AssertionError) as e:
            flaw = "unclear" if "\n" in str(e).strip() or not str(e).strip() else ""
            if not flaw and before is not None and not _same(before, _values(optimizer, params), None):
                flaw = "changed"
            by_fused = any(group["fused"] for group in optimizer.param_groups) or "grad_scale" in str(e)
            return history, Refusal(step, f"{type(e).__name__}: {e}", by_fused, flaw)
        seen |= {str(p.dtype) for p in params}
        tolerance = max(TOLERANCE.get(kind, 0.0) for kind in seen) * condition
        history.append((copy.deepcopy(_values(optimizer, params)), tolerance))
    return history, None


def judge(case: int, seed: int) -> Outcome:
    """The three implementations' verdict on a case."""
    single, foreach, fused = (trace(case, seed, name) for name in FLAGS)
    for a, b, names in ((foreach, single, "foreach and single"), (fused, foreach, "fused and foreach")):
        for step, (x, y) in enumerate(zip(a[0], b[0], strict=False)):
            if not _same(x[0], y[0], x[1]):
                return Outcome(case, "difference", f"{names} differ after step {step}")
    for name, (_, refusal) in zip(FLAGS, (single, foreach, fused), strict=True):
        if refusal and refusal.flaw:
            return Outcome(case, refusal.flaw, f"{name}: {refusal.line}")
    refusals = [refusal for _, refusal in (fused, foreach, single) if refusal]
    first = min((r.step for r in refusals if not r.fused), default=math.inf)
    # Fused may refuse what the others take, and nothing else: what one of those refuses, all do.
    late = [name for name, (history, _) in zip(FLAGS, (single, foreach, fused), strict=True) if len(history) > first]
    if late:
        line = next(r.line for r in refusals if r.step == first and not r.fused)
        return Outcome(case, "difference", f"computed by {late} and refused elsewhere: {line}")
    return Outcome(case, "refused", refusals[0].line) if refusals else Outcome(case, "agreed", "")


# ---- what a case is made of ------------------------------------------------------------------------------------------


def _build(draw: random.Random, numbers: Any, implementation: str) -> Any:
    import torch

    from adarem import AdaRem, AdaRemS

    sphere = draw.random() < 0.4
    dtype = draw.choice([torch.float32] * 4 + [torch.float64, torch.bfloat16, torch.float16])
    mixed = draw.random() < 0.2
    groups: list[dict[str, Any]] = []
    for _ in range(draw.choice([1, 1, 2])):
        params = []
        for _ in range(draw.randint(1, 4)):
            kind = draw.choice([torch.float32, torch.float64, torch.bfloat16]) if mixed else dtype
            params.append(torch.nn.Parameter(_tensor(draw, numbers, kind)))
        groups.append({"params": params, "scope": draw.choice(["tensor", "tensor", "model"])})
    if sphere and any(p.numel() for p in groups[0]["params"]):
        groups[0]["spherical"] = True
    settings: dict[str, Any] = {
        "lr": draw.choice([0.1, 0.01]),
        "beta": draw.choice([0.0, 0.9, 0.4, 1.0]),
        "lam": draw.choice([0.5, 0.9, 1.0, 0.0]),
        "decay_every": draw.randint(1, 3),
        "eps": draw.choice([0.0, 0.0, 1e-3]),
        "weight_decay": draw.choice([0.0, 0.01]),
        "maximize": draw.random() < 0.2,
    }
    if draw.random() < 0.1:
        settings["lr"] = torch.tensor(settings["lr"], dtype=torch.float64)
    if sphere:
        settings["sphere"] = draw.choice(["model", "tensor"])
        settings["slr"] = draw.random() < 0.7
    return (AdaRemS if sphere else AdaRem)(groups, **settings, **FLAGS[implementation])


def _tensor(draw: random.Random, numbers: Any, dtype: Any) -> Any:
    """Of a random shape and layout."""
    import torch

    shape = draw.choice([(), (1,), (5,), (3, 4), (4, 3, 2, 2), (2, 0), (7, 3)] * 3 + [(70_001,)])
    values = torch.randn(shape, generator=numbers, dtype=torch.float64).to(dtype)
    layout = draw.choice(["contiguous", "contiguous", "transposed", "sliced", "channels_last", "offset"])
    if layout == "transposed" and values.dim() == 2:
        return values.t().contiguous().t()
    if layout == "sliced" and values.dim():
        wide = torch.zeros((*shape[:-1], 2 * shape[-1]), dtype=dtype)
        wide[..., ::2] = values
        return wide[..., ::2]
    if layout == "channels_last" and values.dim() == 4:
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "offset":
        return torch.cat([torch.zeros(1, dtype=dtype), values.flatten()])[1:].view(shape)
    return values


def _give_gradients(params: list[Any], draw: random.Random, numbers: Any) -> None:
    import torch

    for p in params:
        choice = draw.random()
        if p.layout != torch.strided or p.is_nested:
            continue
        grad = torch.randn(p.shape, generator=numbers, dtype=torch.float64).to(p.dtype)
        if choice < 0.1:
            p.grad = None
            continue
        if choice < 0.15 and grad.numel() and grad.dim():
            grad = grad.flatten()[:1].expand(p.shape)
        elif choice < 0.2 and grad.dim() == 2:
            grad = grad.t().contiguous().t()
        elif choice < 0.25:
            grad = torch._neg_view(grad)
        elif choice < 0.3:
            grad = torch.zeros_like(grad)
        p.grad = grad


def _scale(optimizer: Any, params: list[Any], scale: float) -> None:
    """As a GradScaler: fused divides the gradients itself."""
    import torch

    scaled = any(group["fused"] for group in optimizer.param_groups)
    for p in params:
        if p.grad is not None and p.grad.dtype.is_floating_point:
            p.grad = p.grad.clone() if scaled else p.grad / scale
    if scaled:
        optimizer.grad_scale, optimizer.found_inf = torch.full((), scale), torch.zeros(())


def _condition(optimizer: Any) -> float:
    """How much larger rounding errors become: those with gradients bring all of a sphere back to its length alone."""
    worst = 1.0
    for group in optimizer.param_groups:
        if not group.get("spherical") or group.get("sphere") != "model":
            continue
        dense = [p for p in group["params"] if not isinstance(_plain(p.detach()), str)]
        norms2 = [p.detach().double().square().sum().item() for p in dense]
        moved = sum(n for p, n in zip(dense, norms2, strict=True) if p.grad is not None)
        if moved > 0 and math.isfinite(sum(norms2)):
            worst = max(worst, 1e-3 * sum(norms2) / moved)
    return worst


def _disturb(optimizer: Any, params: list[Any], draw: random.Random, numbers: Any) -> str:
    """Something that a user, a tool or a defect may do between two steps; returns its name."""
    import torch

    p = draw.choice(params)
    other = draw.choice(params)
    group = draw.choice(optimizer.param_groups)
    state = optimizer.state.get(p, {})
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    dtype = draw.choice(dtypes)
    again = _tensor(draw, numbers, p.dtype)
    entry = draw.choice(["exp_avg", "exp_avg_max", "step", "decay_offset", "alpha", "radius"])

    def convert() -> None:
        had = p.grad is not None
        p.grad = None
        p.data = p.data.to(dtype)
        p.grad = torch.ones_like(p) if had else None

    def replace() -> None:
        p.grad = None
        p.data = again
        p.grad = torch.ones_like(p)

    def same_shape() -> None:
        p.data = p.detach().clone(memory_format=torch.contiguous_format)

    def move_gradient() -> None:
        if p.grad is not None:
            p.grad.data = draw.choice([p.grad.data.to(dtype), again, p.grad.data.flatten()[:1]])

    def change_state() -> None:
        if entry in state and isinstance(state[entry], torch.Tensor):
            x = state[entry]
            kinds = [
                lambda: x.to(draw.choice([*dtypes, torch.int64, torch.int32])),
                lambda: x.reshape(1) if x.dim() == 0 else x.flatten()[: max(1, x.numel() // 2)].clone(),
                lambda: x.flatten()[:1].expand(x.shape),
                lambda: x.clone().contiguous(),
                lambda: x.to_sparse() if x.dim() else float(x),
                lambda: x.to("meta"),
            ]
            state[entry] = draw.choice(kinds)()

    def in_place() -> None:
        if p.numel() and "exp_avg" in state:
            x = state[entry] if isinstance(state.get(entry), torch.Tensor) else state["exp_avg"]
            draw.choice(
                [
                    lambda: x.unsqueeze_(0),
                    lambda: x.t_() if x.dim() == 2 else None,
                    lambda: x.set_(again.to(x.dtype)),
                    lambda: x.set_(p.detach()) if x.dtype == p.dtype else None,
                    lambda: x.resize_(x.numel()),
                    lambda: x.share_memory_(),
                ]
            )()

    def swap() -> None:
        if p in optimizer.state and other in optimizer.state:
            optimizer.state[p], optimizer.state[other] = optimizer.state[other], optimizer.state[p]

    def share_state() -> None:
        if entry in state and entry in optimizer.state.get(other, {}):
            state[entry] = optimizer.state[other][entry]

    def bad_count() -> None:
        if "step" in state and isinstance(state["step"], torch.Tensor) and state["step"].is_floating_point():
            state["step"].fill_(draw.choice([math.nan, -1.0, math.inf, 3.0, 2.0**30]))

    def count_kind() -> None:
        if "step" in state:
            count = state["step"]
            as_tensor = torch.as_tensor(count)
            state["step"] = draw.choice([as_tensor.double, as_tensor.long, lambda: int(count)])()

    def free() -> None:
        from adarem.optim.memory import extent

        x = draw.choice([state.get("exp_avg"), p.data, p.grad])
        if p.grad is not None and x is not None and x.numel() > 1:
            reach = x.storage_offset() + abs(extent(x.size(), x.stride()))
            less = (
                reach - 1
            ) * x.element_size()  # for as many bytes as are needed there would be others' numbers in it
            for nbytes in draw.choice([(0,), (less,), (0, less)]):
                x.untyped_storage().resize_(nbytes)

    def alias() -> None:
        if p is not other and p.numel() and p.dtype == other.dtype and other.numel() >= p.numel():
            p.data = (
                other.detach().flatten()[: p.numel()].view(p.shape)
                if draw.random() < 0.5
                else other.data.view_as(other)
            )

    def own_gradient() -> None:
        p.grad = p.detach() if draw.random() < 0.5 else p.grad

    def expand() -> None:
        if p.numel():
            shape = p.shape
            p.data = p.detach().flatten()[:1].clone().expand(shape.numel()).as_strided(shape, (0,) * len(shape))

    def sparse() -> None:
        if p.grad is not None and p.dim():
            p.grad = p.grad.to_sparse()

    def setting() -> None:
        import numpy as np

        key = draw.choice(["lr", "beta", "lam", "decay_every", "eps", "weight_decay", "scope", "maximize"])
        valid: dict[str, list[Any]] = {
            "lr": [0.05, torch.tensor(0.0625), np.float32(0.0625), 0],
            "beta": [0.5, np.float64(0.3), torch.tensor(0.25)],
            "lam": [0.5, 1, np.float32(0.5)],
            "decay_every": [1, 2, 5, np.int64(2)],
            "eps": [0.0, 1e-2],
            "weight_decay": [0.0, 0.1],
            "scope": ["tensor", "model"],
            "maximize": [True, False],
        }
        odd = [0, -1, 2.5, True, math.nan, math.inf, None, "x", torch.ones(2), torch.tensor(-1.0), 1 + 2j]
        group[key] = draw.choice(valid[key] if draw.random() < 0.5 or key == "maximize" else odd)

    def switch() -> None:
        names = list(FLAGS)
        turn = draw.randint(1, 2)
        for g in optimizer.param_groups:
            now = "fused" if g["fused"] else "foreach" if g["foreach"] else "single"
            g.update(FLAGS[names[(names.index(now) + turn) % 3]])

    def odd_scale() -> None:
        if any(g["fused"] for g in optimizer.param_groups):
            kinds = [torch.ones(2), torch.ones((), dtype=torch.int32), 2.0, torch.ones((), dtype=torch.float64)]
            optimizer.grad_scale = draw.choice(kinds)
        else:
            draw.choice([0, 1, 2, 3])

    def reload() -> None:
        saved = copy.deepcopy(optimizer.state_dict())
        ids = list(saved["state"])
        if len(ids) > 1 and draw.random() < 0.5:
            a, b = draw.sample(ids, 2)
            saved["state"][a], saved["state"][b] = saved["state"][b], saved["state"][a]
        optimizer.load_state_dict(saved)

    actions: list[Callable[[], None]] = [
        convert, replace, same_shape, move_gradient, change_state, change_state, swap, share_state, bad_count,
        count_kind, free, in_place, in_place, alias, own_gradient, expand, sparse, setting, setting, switch, odd_scale,
        reload,
    ]  # fmt: skip
    seed = draw.random()
    action = draw.choice(actions)
    inner = random.Random(seed)  # what an action draws leaves the rest of the case as it is
    state_of_draw = draw.getstate()
    draw.seed(inner.random())
    try:
        action()
    except NotImplementedError:
        pass  # torch itself refuses, as a view of what an earlier fault made sparse
    finally:
        draw.setstate(state_of_draw)
    return action.__name__


# ---- comparison ------------------------------------------------------------------------------------------------------


def _values(optimizer: Any, params: list[Any]) -> list[Any]:
    import torch

    found: list[Any] = []
    for p in params:
        own = optimizer.state.get(p, {})
        found.append(p.detach())
        found += [own.get(key) for key in ("step", "exp_avg", "exp_avg_max", "alpha", "radius")]
    return [_plain(x) if isinstance(x, torch.Tensor) else x for x in found]


def _plain(x: Any) -> Any:
    """Values to compare: none of a tensor whose memory is freed, all or in part."""
    import torch

    from adarem.optim.memory import extent

    if x.layout != torch.strided or x.is_meta:
        return str(x.layout)
    reach = x.storage_offset() + abs(extent(x.size(), x.stride()))
    if x.numel() and x.untyped_storage().nbytes() < reach * x.element_size():
        return "freed"
    return x.to(torch.float64).clone(), str(x.dtype)


def _same(a: list[Any], b: list[Any], tolerance: float | None) -> bool:
    """Bit for bit, or within a share of the largest value."""
    import torch

    for x, y in zip(a, b, strict=True):
        if not (isinstance(x, tuple) and isinstance(y, tuple)):
            if (x is None) != (y is None) and tolerance is None:
                return False
            continue
        (u, _), (v, _) = x, y
        if u.shape != v.shape:
            return False
        if tolerance is None:
            if not torch.equal(u.nan_to_num(1e99, 2e99, 3e99), v.nan_to_num(1e99, 2e99, 3e99)):
                return False
            continue
        lost = ~(u.isfinite() | v.isfinite())  # an infinity of one may be a NaN of the other
        u, v = u.masked_fill(lost, 0.0), v.masked_fill(lost, 0.0)
        finite = u[u.isfinite()].abs()
        size = finite.max().item() if finite.numel() else 0.0
        bound = tolerance * size + 1e-30
        if not torch.allclose(u, v, rtol=0, atol=bound, equal_nan=True):
            return False
    return True


# ---- processes -------------------------------------------------------------------------------------------------------


def child(first: int, last: int, seed: int) -> None:
    """Prints a line before and after each case."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    for case in range(first, last):
        print(json.dumps(["begin", case]), flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(10 * SECONDS)
        print(json.dumps(["end", *judge(case, seed)]), flush=True)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)


def run(cases: int, seed: int) -> Iterator[Outcome]:
    """The outcome of each case, with a child for each batch, and another one after each crash."""
    first = 0
    while first < cases:
        last = min(first + BATCH, cases)
        command = [sys.executable, "-m", "tests.support.fuzz_optimizers", "--seed", str(seed)]
        done = subprocess.run(
            [*command, "--child", str(first), str(last)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        begun = first - 1
        ended = first
        for line in done.stdout.splitlines():
            word, *rest = json.loads(line)
            if word == "begin":
                begun = rest[0]
            else:
                yield Outcome(*rest)
                ended = rest[0] + 1
        if done.returncode and ended < last:
            last_line = (done.stderr.strip().splitlines() or [""])[-1] if done.returncode > 0 else ""
            what = signal.Signals(-done.returncode).name if done.returncode < 0 else last_line
            yield Outcome(max(begun, ended), "crash", what)
            ended = max(begun, ended) + 1
        first = ended if done.returncode else last


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child, args.seed)
        return 0
    verdicts: collections.Counter[str] = collections.Counter()
    messages: collections.Counter[str] = collections.Counter()
    for outcome in run(args.cases, args.seed):
        verdicts[outcome.verdict] += 1
        if outcome.verdict == "refused":
            messages[re.sub(r"[-\d.]+", "#", outcome.note)[:90]] += 1
        elif outcome.verdict != "agreed":
            print(f"case {outcome.case}: {outcome.verdict}: {outcome.note}", flush=True)
        if (done := sum(verdicts.values())) % 1000 == 0:
            print(f"{done} of {args.cases} cases", file=sys.stderr, flush=True)
    for message, count in messages.most_common():
        print(f"{count:6} {message}")
    names = ("agreed", "refused", "difference", "unclear", "changed", "crash")
    print(f"seed {args.seed}, {sum(verdicts.values())} cases: " + ", ".join(f"{verdicts[n]} {n}" for n in names))
    return 0 if set(verdicts) <= {"agreed", "refused"} else 1


if __name__ == "__main__":
    sys.exit(main())
