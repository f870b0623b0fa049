"""Lines of what costs time: of all ranks, each once; and a run on a machine where nothing can be kept."""

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from adarem.data.ffcv import partial_decode
from adarem.native import SlowerWarning
from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.train.slower import collecting, of_all_ranks
from tests.support.training import torchrun


def test_only_these_warnings_are_collected() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with collecting() as notes:
            warnings.warn("a: slow; do b", SlowerWarning, stacklevel=1)
            warnings.warn("something else", stacklevel=1)
        warnings.warn("c: slow; do d", SlowerWarning, stacklevel=1)
    assert notes == ["a: slow; do b"]
    assert [str(w.message) for w in shown] == ["something else", "c: slow; do d"]


def test_a_note_of_many_ranks_is_one_line() -> None:
    context = SimpleNamespace(hosts=("a", "a", "b"), gather=lambda own: [own, (), ("z: no; w", "x: no; y")])
    assert of_all_ranks(context, ["x: no; y"]) == ("rank 0 on a: x: no; y", "rank 2 on b: z: no; w")


def test_the_log_says_why_complete_images_are_decoded(
    tiny_run: Callable[..., Path],
    run_here: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CC", "no-such-cc")
    monkeypatch.setattr(partial_decode, "find", partial_decode.find.__wrapped__)
    run = RunDir(tiny_run("scale.epochs=1"))
    with warnings.catch_warnings(record=True) as shown:
        assert run_here(run.path) == exitcodes.OK
    assert not [w for w in shown if w.category is SlowerWarning]
    lines = [line for line in run.log_file.read_text().splitlines() if "complete images are decoded" in line]
    assert len(lines) == 1 and "CC=no-such-cc: no such program; set CC to a compiler, or unset it (until" in lines[0]


@pytest.mark.slow
def test_a_run_needs_no_folder_but_its_own(tiny_run: Callable[..., Path], tmp_path: Path) -> None:
    """As in a read-only image without a home: no cache can be written, by numba neither."""
    site = tmp_path / "site"
    site.mkdir()
    # root may write anywhere: the folders that numba looks at are refused by hand
    refuse = "import os\nmake = os.makedirs\ndef makedirs(path, *a, **k):\n    if '__pycache__' in str(path) or "
    refuse += (
        "'numba' in str(path):\n        raise PermissionError(13, 'Permission denied', path)\n    make(path, *a, **k)\n"
    )
    (site / "sitecustomize.py").write_text(refuse + "os.makedirs = makedirs\n")
    run = RunDir(tiny_run("optimizer=adarem", "scale.epochs=1"))
    home = tmp_path / "nonexistent"
    done = torchrun(1, run.path, PYTHONPATH=str(site), HOME=str(home), XDG_CACHE_HOME="", NUMBA_CACHE_DIR="")
    assert done.returncode == 0, done.stderr
    assert not home.exists()
    log = run.log_file.read_text()
    assert log.count(f"HOME={home}: no such folder") == 1
    assert "cannot be written" not in log  # numba's folder is in the same place: one line for both
