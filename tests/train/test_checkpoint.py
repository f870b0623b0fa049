"""Checkpoints: complete or absent, damage found, nothing executed, later steps without effect on them."""

import hashlib
import io
import os
import pickle
from pathlib import Path

import pytest
import torch

from adarem.run.errors import UserError
from adarem.train.checkpoint import CheckpointWriter, find_newest, load


def save(folder: Path, step: int, **state) -> None:
    writer = CheckpointWriter(folder)
    writer.save(step, state)
    writer.wait()


def test_round_trip_and_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, model={"w": torch.full((3,), float(step))}, training={"step": step})
    assert [p.name[:14] for p in sorted(tmp_path.iterdir())] == ["step-000000020", "step-000000030"]
    path, notes = find_newest(tmp_path)
    assert notes == []
    assert load(path)["training"] == {"step": 30}
    assert torch.equal(load(path)["model"]["w"], torch.full((3,), 30.0))


def test_what_is_saved_is_the_moment_of_saving(tmp_path: Path) -> None:
    weight = torch.zeros(1000)
    writer = CheckpointWriter(tmp_path)
    writer.save(1, {"model": {"w": weight}, "nested": [weight, {"t": (weight,)}]})
    weight += 1  # training continues while the file is written
    writer.wait()
    state = load(find_newest(tmp_path)[0])
    assert state["model"]["w"].sum() == 0 and state["nested"][1]["t"][0].sum() == 0


def test_damage_is_found_named_and_set_aside(tmp_path: Path) -> None:
    save(tmp_path, 1, x=torch.arange(5000))
    good, _ = find_newest(tmp_path)
    complete = good.read_bytes()
    name = good.name.replace("000000001", "000000002")
    cuts = [complete[: len(complete) * i // 10] for i in range(10)]
    flips = [
        bytes(b ^ (1 << (i % 8)) if j == i else b for j, b in enumerate(complete)) for i in (0, 77, len(complete) - 1)
    ]
    for damaged in cuts + flips:
        (tmp_path / name).write_bytes(damaged)
        found, notes = find_newest(tmp_path)
        assert found == good
        assert notes == [f"{name}: damaged (checksum differs), set aside as {Path(name).with_suffix('.damaged').name}"]
        assert not (tmp_path / name).exists()
    good.unlink()
    assert find_newest(tmp_path) == (None, [])


@pytest.mark.parametrize("content", [[1], {"model": {}}, torch.zeros(3), b"text"])
def test_a_foreign_file_under_a_checkpoints_name_is_set_aside(tmp_path: Path, content: object) -> None:
    """Its checksum is right, and still it is none."""
    save(tmp_path, 1, x=torch.arange(5))
    good, _ = find_newest(tmp_path)
    buffer = io.BytesIO(content) if isinstance(content, bytes) else io.BytesIO()
    if not isinstance(content, bytes):
        torch.save(content, buffer)
    stem = f"step-000000002-{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}"
    (tmp_path / f"{stem}.pt").write_bytes(buffer.getvalue())
    foreign = f"{stem}.pt: foreign (no checkpoint of adarem), set aside as {stem}.foreign"
    assert find_newest(tmp_path) == (good, [foreign])
    assert (tmp_path / f"{stem}.foreign").read_bytes() == buffer.getvalue()


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "step-1.pt").write_bytes(b"mine")
    (tmp_path / ".step-000000001-0123456789abcdef.pt.xyz.partial").write_bytes(b"half")
    assert find_newest(tmp_path) == (None, [])
    assert (tmp_path / "step-1.pt").exists()


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "x": Evil()}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    with pytest.raises(UserError, match="no checkpoint of adarem"):
        load(path)
    assert not (tmp_path / "pwned").exists()


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"format": 0}, path)
    with pytest.raises(UserError, match="checkpoint format 0, this version reads 3 and 4"):
        load(path)


def test_a_failed_write_is_reported_at_the_next_chance(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    writer = CheckpointWriter(blocked)
    writer.save(1, {"x": 1})
    with pytest.raises(UserError, match="a link or a file and no folder"):
        writer.wait()
    writer.wait()  # reported once
