"""Tokens a second of the AWD-LSTM's training step next to the plainest nn.LSTM loop of the same sizes: one table.

    python -m benchmarks.lstm_step --size small --out benchmarks/results
    python -m benchmarks.lstm_step --size paper --rounds 3 --steps 1

Rows: the plain loop (embedding, LSTM layers, tied decoder, cross-entropy, SGD: no dropout, no regularisation, no
clipping); our step with every dropout at 0; and our step with all of Merity et al. 2017: masks drawn anew, weight
drop, activation regularisation, clipping. Rounds are interleaved, in another order each. Seconds are wall time and,
because other work on the machine disturbs those, CPU time of this process (one thread, unless --threads).
"""

import argparse
import datetime
import platform
import random
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from adarem.train.models.awd_lstm import AwdLstm, detach, regularisation

SIZES = {  # vocabulary, embedding, hidden, layers, time steps, columns
    "small": (2_000, 100, 200, 3, 35, 20),
    "paper": (10_000, 400, 1150, 3, 70, 20),
}
DROPOUT = {
    "dropout_words": 0.1,
    "dropout_input": 0.4,
    "dropout_hidden": 0.25,
    "dropout_output": 0.4,
    "dropout_recurrent": 0.5,
}


def plain_step(size: tuple[int, ...], device: torch.device) -> Callable[[], None]:
    vocabulary, embedding, hidden, layers, steps, columns = size
    sizes = [embedding, *[hidden] * (layers - 1), embedding]
    table = nn.Embedding(vocabulary, embedding).to(device)
    lstms = nn.ModuleList(nn.LSTM(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)).to(device)
    bias = nn.Parameter(torch.zeros(vocabulary, device=device))
    optimizer = torch.optim.SGD([*table.parameters(), *lstms.parameters(), bias], lr=1e-3)
    words = torch.randint(vocabulary, (steps + 1, columns), device=device)
    carried: list = [None] * layers

    def step() -> None:
        x = table(words[:-1])
        for i, lstm in enumerate(lstms):
            x, (h, c) = lstm(x, carried[i])
            carried[i] = (h.detach(), c.detach())
        loss = F.cross_entropy(F.linear(x, table.weight, bias).flatten(0, 1), words[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def our_step(size: tuple[int, ...], device: torch.device, dropout: dict[str, float], full: bool) -> Callable[[], None]:
    vocabulary, embedding, hidden, layers, steps, columns = size
    model = AwdLstm(vocabulary, embedding=embedding, hidden=hidden, layers=layers, **dropout).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    words = torch.randint(vocabulary, (steps + 1, columns), device=device)
    generator = torch.Generator(device)
    state = {"hidden": model.zero_hidden(columns), "step": 0}

    def step() -> None:
        state["step"] += 1
        masks = model.draw_masks(columns, generator.manual_seed(state["step"]))
        out = model(words[:-1], state["hidden"], masks)
        loss = F.cross_entropy(out.logits.flatten(0, 1), words[1:].flatten())
        if full:
            loss = loss + regularisation(out, 2.0, 1.0)
        state["hidden"] = detach(out.hidden)
        optimizer.zero_grad()
        loss.backward()
        if full:
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()

    return step


def measure(step: Callable[[], None], steps: int, device: torch.device) -> tuple[float, float]:
    """Seconds a step: wall, and CPU time of this process."""

    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    if device.type == "cuda":
        torch.cuda.synchronize()
    wall, own = time.perf_counter(), cpu()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - wall) / steps, (cpu() - own) / steps


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="folder for the table as a dated Markdown file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device, size = torch.device(args.device), SIZES[args.size]
    rows = {
        "plain nn.LSTM loop": plain_step(size, device),
        "ours, dropouts at 0": our_step(size, device, {}, full=False),
        "ours, all of the AWD-LSTM": our_step(size, device, DROPOUT, full=True),
    }
    for step in rows.values():  # warm up
        measure(step, max(1, args.steps // 2), device)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    order, dice = list(rows), random.Random(0)
    for _ in range(args.rounds):
        dice.shuffle(order)
        for name in order:
            seconds[name].append(measure(rows[name], args.steps, device))
    vocabulary, embedding, hidden, layers, time_steps, columns = size
    tokens = time_steps * columns
    hardware = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cpu_name()}, {args.threads} thread(s)"
    )
    lines = [
        f"# AWD-LSTM training step, {args.size} size",
        "",
        f"{datetime.date.today()}, {hardware}, torch {torch.__version__}, Python {platform.python_version()}. "
        f"{layers} layers of {hidden}, embedding {embedding}, vocabulary {vocabulary:,}, {time_steps} time steps, "
        f"{columns} columns, SGD. Median of {args.rounds} interleaved rounds of {args.steps} steps; by "
        f"`python -m benchmarks.lstm_step --size {args.size} --rounds {args.rounds} --steps {args.steps} "
        f"--threads {args.threads} --device {args.device}`.",
        "",
        "| step | tokens/s (wall) | tokens/s (CPU time) | CPU time, ratio to the plain loop |",
        "| --- | ---: | ---: | ---: |",
    ]
    plain = statistics.median(cpu for _, cpu in seconds["plain nn.LSTM loop"])
    for name, measured in seconds.items():
        wall, cpu = (statistics.median(column) for column in zip(*measured, strict=True))
        lines.append(f"| {name} | {tokens / wall:,.0f} | {tokens / cpu:,.0f} | {cpu / plain:.2f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        kind = "cuda" if device.type == "cuda" else "cpu"
        (args.out / f"lstm_step-{args.size}-{datetime.date.today()}-{kind}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
