import os
from pathlib import Path

import pytest

from adarem.cli import main
from adarem.plan.plan import make_plan
from adarem.probe.probe import cells, probe
from adarem.run import exitcodes
from adarem.run.errors import UserError
from adarem.run.measurements import read_measurements
from tests.support.launching import executable


def words(tmp_path: Path, root: Path, *more: str) -> list[str]:
    return ["grid=table2", "data=digits", f'data.root="{root}"', f'runs_dir="{tmp_path / "runs"}"', *more]


def test_seeds_and_rates_share_a_cell(tmp_path: Path) -> None:
    plan = make_plan(words(tmp_path, tmp_path, "optimizer=sgdm,adam", "optimizer.lr=0.2,0.1", "seeds=[0,1,2]"))
    found = cells(plan)
    assert len(plan.runs) == 12
    assert [(c.optimizer.name, c.optimizer.lr) for c in found] == [("sgdm", 0.1), ("adam", 0.1)]


def test_a_drawn_search_has_a_cell_for_each_network_and_optimizer(tmp_path: Path) -> None:
    plan = make_plan(["grid=table2_search", *words(tmp_path, tmp_path)[1:]])
    found = [(c.model.name, c.optimizer.name) for c in cells(plan)]
    assert len(plan.runs) > len(found) and len(set(found)) == len(found) == len(plan.spec.optimizers)


def test_data_that_are_not_prepared_are_one_line_with_the_command(tmp_path: Path) -> None:
    plan = make_plan(words(tmp_path, tmp_path / "nothing"))
    with pytest.raises(UserError, match="adarem prepare data=digits"):
        probe(plan, seconds=1.0)
    with pytest.raises(UserError, match="--seconds=0"):
        probe(plan, seconds=0)


def test_training_itself_is_measured(
    tmp_path: Path, digits_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    given = words(tmp_path, digits_root, "model=shufflenet_v2_0.5", "optimizer=adarem", "cluster.ranks_per_node=1")
    assert main(["plan", "--dry-run", *given]) == exitcodes.OK
    assert "price: not measured here; `adarem probe grid=table2 data=digits" in capsys.readouterr().out
    assert main(["probe", "--seconds=0.5", *given]) == exitcodes.OK
    assert "AdaRem: " in (out := capsys.readouterr().out) and "written: " in out
    (m,) = read_measurements(tmp_path / "runs")
    assert m.ranks == 1 and m.unit == "images" and m.steps_per_epoch == 1437 // 64 and m.steps >= 4
    assert m.evaluated == 360 and m.evaluation_seconds > 0 and m.evaluation_cpu_seconds > 0
    assert m.checkpoint_bytes > 4 * 350_000  # the parameters alone
    assert m.memory_bytes > 100e6 and 0 <= m.loader_share < 1
    assert 0 < m.before_record_seconds < m.first_step_seconds and m.start_cpu_seconds > 0.5
    assert list((tmp_path / "runs" / ".probe").iterdir()) == []  # what it trained is gone
    assert main(["plan", *given]) == exitcodes.OK
    assert "price: 1 runs left" in capsys.readouterr().out


def test_a_job_measures_on_slurms_nodes(
    tmp_path: Path, digits_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bin = tmp_path / "bin"
    bin.mkdir()
    executable(bin / "sbatch", f'#!/bin/bash\nprintf "%s\\n" "$@" >{tmp_path}/asked\necho 77\n')
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    plan = make_plan(
        words(tmp_path, digits_root, "optimizer=sgdm,adam", "cluster=slurm", "scale.micro_batch_size=auto"),
        measured=False,
    )
    assert probe(plan, seconds=20.0) == exitcodes.OK
    asked = (tmp_path / "asked").read_text().splitlines()
    assert {"--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--time=00:19:00"} <= set(asked)
    script, job_file, folder, runs_dir, seconds = asked[-5:]
    assert script.endswith("slurm/probe.sbatch") and job_file.startswith("--job-file=") and job_file.endswith(".job")
    assert runs_dir == str(tmp_path / "runs") and seconds == "20"
    assert sorted(p.name for p in Path(folder).iterdir()) == ["0", "1"]
    assert (Path(folder) / "0" / "auto").exists() and (Path(folder) / "0" / "config.yaml").exists()
    assert "probe    job 77: 2 cells, 2 nodes x 8 ranks each" in capsys.readouterr().out
