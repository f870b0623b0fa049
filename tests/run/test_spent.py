from pathlib import Path

import pytest

from adarem.run.errors import UserError
from adarem.run.spent import JobRecord, accounting_file, read_accounting, spent, write_accounting

JOBS = [
    JobRecord("a", "12_0", "PREEMPTED", "2026-01-01T00:00:00", 1800.0, 8, 64),
    JobRecord("a", "12_0", "COMPLETED", "2026-01-01T01:00:00", 3600.0, 8, 64),
]


def test_slurms_records_count_before_attempts(tmp_path: Path) -> None:
    write_accounting(tmp_path, JOBS)
    found = read_accounting(tmp_path)
    assert found == {"a": JOBS}
    taken = spent(found["a"], [{"start": 0.0, "end": 1.0}], 16)
    assert taken is not None and taken.by_slurm and taken.device_hours == pytest.approx(8 * 1.5)
    no_gpus = [JobRecord("a", "1", "COMPLETED", "", 3600.0, 0, 2)]
    taken = spent(no_gpus, [], 2)
    assert taken is not None and taken.device_hours == 2  # of ranks


def test_attempts_count_with_their_ranks_and_those_without_an_end_are_said() -> None:
    attempts = [{"start": 0.0, "end": 3600.0, "world_size": 4}, {"start": 5000.0, "end": 6800.0}, {"start": 9000.0}]
    taken = spent([], attempts, 2)
    assert taken is not None and not taken.by_slurm and taken.open == 1
    assert taken.device_hours == pytest.approx(4 + 1) and taken.seconds == 5400
    assert spent([], [{"start": 1.0}], 2) is None and spent([], [], 2) is None


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    accounting_file(tmp_path).write_text('{"format": 1, "jobs": [{}]}')
    with pytest.raises(UserError, match="accounting.json: run: missing"):
        read_accounting(tmp_path)
