"""What tracking Q costs: a ResNet-18 training step with and without it, in interleaved rounds of one process.

    python -m benchmarks.oscillation [--device cuda] [--batch 32] [--side 224] [--rounds 9]

Prints a Markdown table: medians, and the share of the step that tracking adds.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from adarem.train.models.library import build_model
from adarem.train.oscillation import OscillationTracker

STEPS_PER_EPOCH = 1251  # ImageNet at a global batch of 1024


@dataclass(frozen=True)
class Seconds:
    """Medians over the rounds, except ``window_end``, which is measured once."""

    step: float
    tracking: float
    window_end: float


def measure(device: torch.device, batch: int, side: int, rounds: int) -> Seconds:
    """Trains ResNet-18 on random images of ``side`` pixels, ``batch`` per step; tracks Q after every step."""
    model = build_model("resnet18", 1000, seed=0).to(device).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    tracker = OscillationTracker(model.named_parameters(), total_steps=100 * STEPS_PER_EPOCH)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def track() -> None:
        tracker.see_gradients()
        tracker.observe()

    step()  # the first round allocates
    track()
    step_seconds, tracking_seconds = [], []
    for _ in range(rounds):
        step_seconds.append(timed(step, device))
        tracking_seconds.append(timed(track, device))
    return Seconds(
        statistics.median(step_seconds), statistics.median(tracking_seconds), timed(tracker.end_window, device)
    )


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, all kernels on the device included."""
    synchronise(device)
    begin = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - begin


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def table(seconds: Seconds) -> str:
    epoch = STEPS_PER_EPOCH * seconds.step
    return "\n".join(
        [
            "| part | ms | share of a step |",
            "| --- | ---: | ---: |",
            f"| training step | {1e3 * seconds.step:.1f} | |",
            f"| tracking of a step | {1e3 * seconds.tracking:.1f} | {100 * seconds.tracking / seconds.step:.2f} % |",
            f"| Q at the end of a window | {1e3 * seconds.window_end:.0f} | "
            f"{100 * seconds.window_end / epoch:.4f} % of an epoch of {STEPS_PER_EPOCH:,} steps |",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32, help="images per step and rank")
    parser.add_argument("--side", type=int, default=224, help="pixels")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seconds = measure(torch.device(args.device), args.batch, args.side, args.rounds)
    print(
        f"ResNet-18, {args.batch} images of {args.side} px per step, {args.device}, {args.threads} thread(s), "
        f"torch {torch.__version__}, medians of {args.rounds} rounds\n"
    )
    print(table(seconds))


if __name__ == "__main__":
    main()
