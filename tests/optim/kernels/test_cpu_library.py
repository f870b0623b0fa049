"""The C++ kernels: compiled once and kept, refused in one line without a compiler."""

import os
from pathlib import Path

import pytest
import torch

from adarem import AdaRem
from adarem.optim.kernels import cpu, cpu_library


def test_fused_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu_library.shutil, "which", lambda name: None)
    uncached = cpu_library.library.__wrapped__
    monkeypatch.setattr(cpu, "library", uncached)
    monkeypatch.setattr(cpu_library, "library", uncached)
    assert not cpu_library.available()
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
        cpu_library.library.__wrapped__()


def test_compiled_kernels_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cpu_library.library.__wrapped__()
    (kept,) = (tmp_path / "adarem").iterdir()
    stamp = os.stat(kept).st_mtime_ns
    cpu_library.library.__wrapped__()
    assert os.stat(kept).st_mtime_ns == stamp
