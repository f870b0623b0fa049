"""manifest.json: written and read back, and refused where it is damaged or names what is not the sweep's."""

import dataclasses
import json

import pytest

from adarem.report.manifest import Files, Manifest, read_manifest, write_manifest
from adarem.run.errors import UserError
from adarem.run.reproduction import Standing

FILES = Files(table=("table.md", "table.csv"), runs=("runs.csv",), figures=("figures/a.png",), page=("report.html",))
MANIFEST = Manifest(
    sweep="table2-digits",
    grid="table2",
    heading="Table 2",
    title="REHEARSAL of Table 2. Six optimizers, λ",
    standing=Standing("rehearsal", "embedded digits, 10 epochs"),
    metrics=("top1", "top5"),
    runs=6,
    finished=5,
    commits=("c0ffee0123", "c0ffee0123+dirty"),
    last_run_ended="2026-11-25T09:00:00+00:00",
    files=FILES,
)


def test_it_is_read_back_by_its_path_or_its_folder(tmp_path):
    path = write_manifest(tmp_path, MANIFEST)
    assert path == tmp_path / "manifest.json"
    assert read_manifest(path) == read_manifest(tmp_path) == MANIFEST
    assert MANIFEST.files.csv == "table.csv"
    assert MANIFEST.files.all == ("table.md", "table.csv", "runs.csv", "figures/a.png", "report.html")


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/table.csv", "figures/../../secret.png", ""])
def test_a_file_outside_of_its_folder_is_refused(tmp_path, name):
    figures = dataclasses.replace(FILES, figures=(name,))
    path = write_manifest(tmp_path, dataclasses.replace(MANIFEST, files=figures))
    with pytest.raises(UserError) as raised:
        read_manifest(path)
    assert str(raised.value) == f"{path}: files: {name!r}: not inside of its folder; rerun `adarem report`"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "no such file; `adarem report` writes it"),
        (b"\xff\xfe", "not JSON; rerun `adarem report`"),
        (b"{", "not JSON; rerun `adarem report`"),
        (b"[]", "needs a mapping with sweep, grid"),
        ({"sweep": 3}, "sweep=3: needs"),
        ({"more": 1}, "more: no such key"),
        ({"standing": {"kind": "guess", "reason": ""}}, "standing.kind=guess: valid: "),
        ({"files": {"table": ["table.md"], "runs": [], "figures": [], "page": []}}, "files.table: names no CSV"),
    ],
)
def test_a_damaged_manifest_is_one_line(tmp_path, change, message):
    path = write_manifest(tmp_path, MANIFEST)
    if change is None:
        path.unlink()
    else:
        path.write_bytes(
            change if isinstance(change, bytes) else json.dumps(dataclasses.asdict(MANIFEST) | change).encode()
        )
    with pytest.raises(UserError) as raised:
        read_manifest(path)
    assert str(raised.value).startswith(f"{path}: ") and message in str(raised.value)
    assert "\n" not in str(raised.value)
