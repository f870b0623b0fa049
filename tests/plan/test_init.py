"""`adarem init` copies what comes with adarem, and overwrites nothing."""

from pathlib import Path

import pytest

from adarem.cli import main
from adarem.plan.plan import make_plan
from adarem.run import exitcodes
from tests.support import ROOT


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_copies_are_complete_and_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == exitcodes.OK
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["configs/", "slurm/"]
    for name in ("configs", "slurm"):
        assert files(tmp_path / name) == files(ROOT / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["configs", "slurm"]
    adam = tmp_path / "configs" / "optimizer" / "adam.yaml"
    adam.write_text(adam.read_text().replace("lr: 0.004", "lr: 0.5"))
    assert make_plan(["data=digits", "optimizer=adam"]).runs[0].config.optimizer.lr == 0.5


@pytest.mark.parametrize("name", ["configs", "slurm"])
def test_nothing_is_overwritten(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert main(["init"]) == exitcodes.USER_ERROR
    line = f"adarem init: {tmp_path / name}: exists, and is not overwritten; move it away, or start in another folder\n"
    assert capsys.readouterr().err == line
    assert list(tmp_path.rglob("*")) == [tmp_path / name]
