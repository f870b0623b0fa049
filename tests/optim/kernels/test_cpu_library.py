"""The C++ kernels: compiled for this processor where it is known, tried, and kept."""

from pathlib import Path

import pytest

from adarem import native
from adarem.optim.kernels import cpu_library


def test_compiled_kernels_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = cpu_library.find.__wrapped__()
    assert found.library is not None and found.library.adarem_self_test() == 0 and not found.note
    (kept,) = (tmp_path / "adarem").iterdir()
    stamp = kept.stat().st_mtime_ns
    assert cpu_library.find.__wrapped__().library is not None
    assert kept.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("known", ["flags : avx2", ""])
def test_an_unknown_processor_gets_code_for_any(known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[native.Source] = []
    monkeypatch.setattr(native, "processor", lambda: known)
    monkeypatch.setattr(native, "load", lambda source: sources.append(source) or native.Loaded(None, ""))
    cpu_library.find.__wrapped__()
    assert any("-march=native" in options for options in sources[0].options) == bool(known)
    assert all("-march=native" not in options for options in sources[0].options[-1:])


def test_another_processor_has_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for flags in ("avx2", "avx2 avx512f"):
        monkeypatch.setattr(native, "processor", lambda flags=flags: flags)
        keys.add(native._key(native.Source(Path(__file__), "CXX", "", (), ()), ["c++"]))
    assert len(keys) == 2


def test_without_kernels_their_use_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_library, "find", lambda: native.Loaded(None, "c++: none; install one"))
    with pytest.raises(RuntimeError, match=r"`fused=True` on the CPU: c\+\+: none; install one"):
        cpu_library.library()
