"""The C++ kernels: compiled once and kept, refused in one line without a compiler, the same for any thread count."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adarem import AdaRem
from adarem.optim.kernels import cpu


def test_fused_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu.shutil, "which", lambda name: None)
    monkeypatch.setattr(cpu, "library", cpu.library.__wrapped__)
    assert not cpu.available()
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    optimizer = AdaRem([p], fused=True)
    with pytest.raises(RuntimeError, match=r"`fused=True` on the CPU needs a C\+\+ compiler: install g\+\+"):
        optimizer.step()
    AdaRem([p]).step()


def test_fused_names_what_the_compiler_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'fatal: no disk' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(RuntimeError, match="could not compile cpu_kernel.cpp: fatal: no disk"):
        cpu.library.__wrapped__()


def test_compiled_kernels_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cpu.library.__wrapped__()
    (kept,) = (tmp_path / "adarem").iterdir()
    stamp = os.stat(kept).st_mtime_ns
    cpu.library.__wrapped__()
    assert os.stat(kept).st_mtime_ns == stamp


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
