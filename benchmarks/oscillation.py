"""What tracking Q costs: a ResNet-18 training step with and without it, in interleaved rounds of one process.

    python -m benchmarks.oscillation [--device cuda] [--batch 32] [--side 224] [--rounds 9]

Prints a Markdown table: medians, and the share of the step that tracking adds.
"""

import argparse
import statistics
import time

import torch
from torch.nn import functional as F

from adarem.train.models.library import build_model
from adarem.train.oscillation import OscillationTracker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32, help="images a step and rank")
    parser.add_argument("--side", type=int, default=224, help="pixels")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    model = build_model("resnet18", 1000, seed=0).to(device, memory_format=torch.channels_last)
    images = torch.randn(args.batch, 3, args.side, args.side, device=device).contiguous(
        memory_format=torch.channels_last
    )
    labels = torch.randint(0, 1000, (args.batch,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    tracker = OscillationTracker(model.named_parameters(), total_steps=125_100)

    def synchronise() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def timed(work) -> float:
        synchronise()
        begin = time.perf_counter()
        work()
        synchronise()
        return time.perf_counter() - begin

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def track() -> None:
        tracker.see_gradients()
        tracker.observe()

    step(), track()
    rounds = [(timed(step), timed(track)) for _ in range(args.rounds)]
    step_seconds, observe_seconds = (statistics.median(column) for column in zip(*rounds, strict=True))
    window_seconds = timed(tracker.end_window)
    print(
        f"ResNet-18, {args.batch} images of {args.side} px a step, {args.device}, {args.threads} thread(s), "
        f"torch {torch.__version__}, medians of {args.rounds} rounds\n"
    )
    print("| part | ms | share of a step |\n| --- | ---: | ---: |")
    print(f"| training step | {1e3 * step_seconds:.1f} | |")
    print(f"| tracking a step | {1e3 * observe_seconds:.1f} | {100 * observe_seconds / step_seconds:.2f} % |")
    epoch = 1251 * step_seconds
    print(
        f"| Q at a window's end | {1e3 * window_seconds:.0f} | "
        f"{100 * window_seconds / epoch:.4f} % of an epoch of 1,251 steps |"
    )


if __name__ == "__main__":
    main()
