from pathlib import Path

import pytest

from adarem.plan.plan import make_plan
from adarem.run.errors import UserError
from adarem.run.measurements import keep_measurement
from tests.support.measured import measurement

AUTO = "scale.micro_batch_size=auto"


def words(tmp_path: Path, *more: str) -> list[str]:
    places = [f'data.root="{tmp_path}"', f'runs_dir="{tmp_path / "runs"}"', "cluster.ranks_per_node=1"]
    return ["grid=table2", "data=digits", "optimizer=sgdm", *places, *more]


def measured(tmp_path: Path, size: int) -> None:
    (tmp_path / "runs").mkdir(exist_ok=True)
    config = make_plan(words(tmp_path, f"scale.micro_batch_size={size}")).runs[0].config
    keep_measurement(tmp_path / "runs", measurement(config, largest_micro_batch_size=size))


def test_without_a_probe_a_number_is_asked_for_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as e:
        make_plan(words(tmp_path, AUTO))
    assert str(e.value).startswith("scale.micro_batch_size=auto: not measured here; run `adarem probe grid=table2 ")
    assert str(e.value).endswith("give a number that divides 64") and "\n" not in str(e.value)


def test_the_probe_needs_none(tmp_path: Path) -> None:
    plan = make_plan(words(tmp_path, AUTO), measured=False)
    assert plan.micro_batch_asked and plan.runs[0].config.scale.micro_batch_size is None
    assert not make_plan(words(tmp_path), measured=False).micro_batch_asked


def test_the_probes_number_is_frozen_as_if_it_were_typed(tmp_path: Path) -> None:
    measured(tmp_path, 16)
    plan = make_plan(words(tmp_path, AUTO))
    assert plan.runs[0].config == make_plan(words(tmp_path, "scale.micro_batch_size=16")).runs[0].config
    plan.write()
    assert "micro_batch_size: 16" in plan.runs[0].run.config_file.read_text()
    assert "4 passes of 16 a step" in plan.describe()


def test_a_later_probe_moves_no_run_that_is_planned(tmp_path: Path) -> None:
    measured(tmp_path, 16)
    make_plan(words(tmp_path, AUTO)).write()
    measured(tmp_path, 32)
    plan = make_plan(words(tmp_path, AUTO))
    assert plan.runs[0].config.scale.micro_batch_size == 16 and not plan.runs[0].new
    (tmp_path / "runs" / "probe.json").unlink()
    assert make_plan(words(tmp_path, AUTO)).runs[0].config.scale.micro_batch_size == 16


def test_an_axis_may_have_it_too(tmp_path: Path) -> None:
    measured(tmp_path, 16)
    plan = make_plan(words(tmp_path, "scale.micro_batch_size=auto,8"))
    assert [p.config.scale.micro_batch_size for p in plan.runs] == [16, 8]
