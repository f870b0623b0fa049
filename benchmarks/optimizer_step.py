"""How long one optimizer step takes over a network's parameters, next to torch's optimizers.

    python -m benchmarks.optimizer_step [--device cpu] [--threads 1] [--rounds 15] [--networks resnet18] [--no-compile]

All candidates live in one process, each with its own parameters and gradients, and are timed in interleaved rounds, so
that other work on the machine affects all alike. On the CPU with one thread the clock is the thread's own time, which
does not run while other processes have the core. Reported: the median, its ratio to fused SGD with momentum in the same
run, and its ratio to the memory floor: the bytes that the algorithm cannot avoid to move, over the bandwidth of
``a.add_(b)`` on tensors of the same total size, measured in the same rounds. Writes a dated table to
benchmarks/results.
"""

import argparse
import datetime
import platform
import statistics
import time
from pathlib import Path

import torch
import torchvision
from torch import nn

from adarem import AdaRem, AdaRemS

NETWORKS = {"resnet18": "ResNet-18", "resnet50": "ResNet-50", "mobilenet_v2": "MobileNetV2"}
SETTINGS = {"lr": 1e-5, "weight_decay": 1e-4}
BASE = "SGDM fused"
TARGETS = {  # of the best path, as a ratio to BASE
    "cpu": {"AdaRem": 1.1, "AdaRem-S": 1.5, "AdaRem foreach": 6.0, "AdaRem-S foreach": 6.0},
    "cuda": {"AdaRem": 1.0, "AdaRem-S": 1.3},
}


def spherical(params: list[nn.Parameter]) -> list[dict]:
    """The convolutions' weights on the sphere, as param_groups would find for these networks."""
    return [
        {"params": [p for p in params if p.dim() == 4], "spherical": True},
        {"params": [p for p in params if p.dim() != 4]},
    ]


def candidates(compile_too: bool) -> dict:
    """Name → (constructor from parameters, passes over memory: all parameters, spherical ones besides, compiled)."""
    optim = torch.optim
    flags = {"single": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
    table = {}
    for impl, flag in flags.items():
        table[f"SGD {impl}"] = (lambda ps, f=flag: optim.SGD(ps, **SETTINGS, **f), 3, 0, False)
    for impl, flag in flags.items():
        table[f"SGDM {impl}"] = (lambda ps, f=flag: optim.SGD(ps, momentum=0.9, **SETTINGS, **f), 5, 0, False)
    for impl in ("foreach", "fused"):
        table[f"Adam {impl}"] = (lambda ps, f=flags[impl]: optim.Adam(ps, **SETTINGS, **f), 7, 0, False)
    table["AdamW fused"] = (lambda ps: optim.AdamW(ps, fused=True, **SETTINGS), 7, 0, False)
    for name, make, extra in (
        ("AdaRem", lambda ps, **kw: AdaRem(ps, **kw), 0),
        ("AdaRem-S", lambda ps, **kw: AdaRemS(spherical(ps), **kw), 2),
    ):
        for impl, flag in flags.items():
            table[f"{name} {impl}"] = (lambda ps, m=make, f=flag: m(ps, **SETTINGS, **f), 5, extra, False)
        if compile_too:
            settings = {**SETTINGS, "foreach": False}
            table[f"{name} compiled"] = (lambda ps, m=make, s=settings: m(ps, **s), 5, extra, True)
    return table


def build(network: str, device: torch.device, make, compiled: bool):
    params = [nn.Parameter(p.detach().clone().to(device)) for p in network_of(network).parameters()]
    for p in params:
        p.grad = torch.randn_like(p) * 1e-3
    optimizer = make(params)
    if not compiled:
        return optimizer.step
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], device=device)
        group["capturable"] = device.type == "cuda"
    optimizer.step()  # states exist before compilation
    return torch.compile(optimizer.step)


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return getattr(torchvision.models, name)()


def timer(device: torch.device):
    """A function that runs another and returns its seconds, on the device's own clock."""
    if device.type == "cpu":
        clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter

        def timed(f):
            start = clock()
            f()
            return clock() - start

        return timed

    def timed(f):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin.record()
        f()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    return timed


def measure(network: str, device: torch.device, rounds: int, compile_too: bool):
    """Medians in seconds by candidate, and bytes a second of a.add_(b)."""
    sizes = [(p.numel(), p.dim() == 4) for p in network_of(network).parameters()]
    total = sum(n for n, _ in sizes)
    a, b = torch.zeros(total, device=device), torch.ones(total, device=device)
    table = candidates(compile_too)
    steps = {name: build(network, device, make, compiled) for name, (make, _, _, compiled) in table.items()}
    steps["bandwidth"] = lambda: a.add_(b)
    timed = timer(device)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():  # states, compilation, warm-up
        for _ in range(3):
            step()
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(timed(step))
    medians = {name: statistics.median(s) for name, s in seconds.items()}
    bandwidth = 3 * 4 * total / medians.pop("bandwidth")
    on_sphere = sum(n for n, sphere in sizes if sphere)
    floors = {
        name: 4 * (passes * total + extra * on_sphere) / bandwidth for name, (_, passes, extra, _) in table.items()
    }
    return medians, floors, bandwidth, total, len(sizes)


def hardware(device: torch.device, threads: int) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    for line in (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    ):
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--no-compile", action="store_true", help="leave the torch.compile rows out")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    date = datetime.date.today().isoformat()
    lines = [
        f"# One optimizer step, {device.type.upper()}",
        "",
        f"{date}; {hardware(device, args.threads)}; torch {torch.__version__}, Python {platform.python_version()}; "
        f"median of {args.rounds} interleaved rounds in one process. Made by `python -m benchmarks.optimizer_step "
        f"--device {device.type} --threads {args.threads} --rounds {args.rounds}"
        f"{' --no-compile' if args.no_compile else ''}`.",
    ]
    verdicts = []
    for network in args.networks:
        medians, floors, bandwidth, total, tensors = measure(network, device, args.rounds, not args.no_compile)
        lines += [
            "",
            f"## {NETWORKS[network]}: {total / 1e6:.1f} M parameters in {tensors} tensors, "
            f"{bandwidth / 1e9:.0f} GB/s measured",
            "",
            f"| step | ms | × {BASE} | × memory floor |",
            "| --- | ---: | ---: | ---: |",
        ]
        for name, seconds in medians.items():
            ratio, floor = seconds / medians[BASE], seconds / floors[name]
            lines.append(f"| {name} | {seconds * 1e3:.2f} | {ratio:.2f} | {floor:.2f} |")
        for target, bound in TARGETS[device.type].items():
            paths = {n: s for n, s in medians.items() if n == target or n.rpartition(" ")[0] == target}
            best = min(paths, key=paths.get)
            ratio = paths[best] / medians[BASE]
            verdicts.append(
                f"- {NETWORKS[network]}: {best} {ratio:.2f} × {BASE}, target {bound}: "
                f"{'met' if ratio <= bound else 'missed'}"
            )
    lines += ["", "## Targets", "", *verdicts, ""]
    if device.type == "cpu":
        lines += ["CUDA: not measured.", ""]
    text = "\n".join(lines)
    print(text)
    out = Path(__file__).parent / "results" / f"optimizer_step-{date}-{device.type}.md"
    out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
