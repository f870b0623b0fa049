"""The call of the C++ kernels: the same for any thread count."""

import torch
from torch import Tensor

from adarem import AdaRem


def test_fused_does_not_depend_on_threads() -> None:
    def run(threads: int) -> tuple[list[Tensor], AdaRem]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            torch.manual_seed(0)
            ps = [torch.randn(n, requires_grad=True) for n in (200_001, 5, 70_000)]
            optimizer = AdaRem(ps, lr=0.1, fused=True)
            for _ in range(3):
                for p in ps:
                    p.grad = torch.randn_like(p)
                optimizer.step()
            return ps, optimizer
        finally:
            torch.set_num_threads(before)

    (one, first), (two, second) = run(1), run(2)
    for p, q in zip(one, two, strict=True):
        assert torch.equal(p, q)
        assert torch.equal(first.state[p]["exp_avg_max"], second.state[q]["exp_avg_max"])
