"""Run directories and sweeps that others made: what is in them leads nowhere else, and hides nothing but itself."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from adarem.launch.snapshot import NO_SLURM, snapshot
from adarem.report.figures.search import figure_names
from adarem.report.load import Sweeps, load_sweep
from adarem.report.make import make
from adarem.report.page.sections import log_tail
from adarem.run import locks
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.files import read_json, read_lines, read_yaml
from adarem.run.sweep import read_names, read_sweep
from adarem.tracking.sync import SyncProcess
from adarem.train.checkpoint import CheckpointWriter, find_newest
from adarem.train.console import RunConsole, append_to_log
from tests.support import ROOT
from tests.support.sweeps import finish, make_config, write_grid

pytestmark = pytest.mark.timeout(120)
PRECIOUS = b"host of another file, which nobody asked to change\n"


def a_link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


def a_link_to_nothing(path: Path, precious: Path) -> None:
    path.symlink_to(precious.with_name("absent"))


def a_link_to_zeros(path: Path, precious: Path) -> None:
    path.symlink_to("/dev/zero")


def a_pipe(path: Path, precious: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path, precious: Path) -> None:
    path.mkdir()


def a_socket(path: Path, precious: Path) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's name is short
        s.bind(path.name)
        os.chdir(here)


def a_device(path: Path, precious: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(path, 0o666 | 0o020000, os.makedev(1, 5))  # zeros without end


Put = Callable[[Path, Path], None]
KINDS = [a_link, a_link_to_nothing, a_link_to_zeros, a_pipe, a_folder, a_socket, a_device]
READ = ["attempts.jsonl", "metrics.jsonl", "oscillation.jsonl", "result.json", "correct.npz", "config.yaml"]
OTHERS = ["steps.jsonl", "progress.json", "log.txt", "lock", "claim", "checkpoints"]


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file").write_bytes(PRECIOUS)
    return tmp_path / "home" / "file"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_grid(tmp_path_factory.mktemp("template") / "runs")
    for optimizer in ("sgdm", "adarem"):
        finish(folder, make_config("resnet18", optimizer), 70.0)
    return folder


@pytest.fixture
def sweep(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs" / finished.name))


def foreign(sweep: Path, name: str, put: Put, precious: Path) -> RunDir:
    run = RunDir(next(p for p in sweep.iterdir() if "adarem" in p.name))
    with contextlib.suppress(FileNotFoundError):
        (run.path / name).unlink()
    put(run.path / name, precious)
    return run


@pytest.mark.parametrize("put", KINDS, ids=lambda put: put.__name__)
@pytest.mark.parametrize("name", READ + OTHERS)
def test_reading_it_ends_and_hides_no_other_run(name: str, put: Put, sweep: Path, precious: Path) -> None:
    run = foreign(sweep, name, put, precious)
    loaded = load_sweep(sweep)
    others = [r for r in loaded.runs if r.dir.path != run.path]
    assert [r.status for r in others] == ["done"] and not others[0].problems
    said = [*loaded.unreadable, *(p for r in loaded.runs if r.dir.path == run.path for p in r.problems)]
    if name in READ and put is not a_link_to_nothing:  # which may be taken for no file at all
        assert any(name in line for line in said)
    assert all("\n" not in line for line in said)
    states = {s.run: s for s in snapshot([sweep], {sweep: NO_SLURM})}
    assert states[others[0].dir.path.name].state == "done", states
    run.locked(), log_tail(run), run.progress()
    with contextlib.suppress(UserError):
        run.read_steps()
    with contextlib.suppress(UserError):
        run.new_steps(0)
    assert precious.read_bytes() == PRECIOUS


def write_all(run: RunDir) -> list[str]:
    """Everything that training and launching write into a run; what was refused."""
    config, refused = make_config("resnet18", "adarem"), []

    def checkpoint() -> None:
        writer = CheckpointWriter(run.checkpoints)
        writer.save(3, {"step": 3})  # type: ignore[typeddict-item, typeddict-unknown-key]
        writer.wait()

    def lock() -> None:
        with run.lock():
            pass

    def console() -> None:
        with RunConsole(run, "name", None) as shown:
            shown.info("a line")

    def claim() -> None:
        if (descriptor := locks.try_hold(run.claim_file)) is not None:
            os.close(descriptor)

    def copied() -> None:
        process = SyncProcess(run, config)
        process.close()
        if process.problem:
            raise UserError(process.problem)

    for act in (
        lock, claim, console, checkpoint, copied,
        lambda: find_newest(run.checkpoints), lambda: append_to_log(run, "a line"),
        lambda: run.end_attempt(run.start_attempt({}), "done"),
        lambda: run.append_metrics({"epoch": 1, "split": "val"}), lambda: run.append_oscillation({"epoch": 1}),
        lambda: run.append_step({"step": 1}), run.sync_steps, lambda: run.keep_steps(0),
        lambda: run.write_progress({"step": 1}), lambda: run.write_correct({"top1": [True]}),
        lambda: run.write_result({"status": "done"}),
    ):  # fmt: skip
        try:
            act()
        except UserError as e:
            refused.append(str(e))
    return refused


@pytest.mark.parametrize("put", KINDS, ids=lambda put: put.__name__)
@pytest.mark.parametrize("name", [n for n in READ if n != "config.yaml"] + OTHERS)
def test_writing_goes_nowhere_else(
    name: str, put: Put, sweep: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = foreign(sweep, name, put, precious)
    (precious.parent / "step-000000009-0123456789abcdef.pt").write_bytes(PRECIOUS)
    (precious.parent / ".x.partial").write_bytes(PRECIOUS)
    if name == "checkpoints" and put is a_link:  # to a folder
        (run.path / name).unlink()
        (run.path / name).symlink_to(precious.parent)
    before = {p.name: p.read_bytes() for p in precious.parent.iterdir()}
    refused = write_all(run)
    assert {p.name: p.read_bytes() for p in precious.parent.iterdir()} == before
    # What is replaced as a whole is a file of one's own afterwards; in place of what is appended to, it is named.
    replaced = name in ("progress.json", "result.json", "correct.npz") and put is not a_folder
    if replaced:
        assert (run.path / name).is_file() and not (run.path / name).is_symlink() and not refused
    elif not (name == "checkpoints" and put is a_folder):
        assert refused and all(f"/{name}: " in line or f"/{name}/" in line for line in refused), refused
        assert all("\n" not in line for line in refused)


@pytest.mark.parametrize("name", ["wandb", "wandb.log"])
def test_the_copy_for_wandb_stays_in_the_run(name: str, sweep: Path, precious: Path) -> None:
    run = foreign(sweep, name, lambda path, _: path.symlink_to(precious.parent), precious)
    config = make_config("resnet18", "adarem", changed={"wandb": {"mode": "offline"}})
    process = SyncProcess(run, config)
    process.close()
    assert process.problem is not None and f"/{name}: a link" in process.problem
    assert [p.name for p in precious.parent.iterdir()] == ["file"]


def test_a_lock_empties_no_file_by_another_name(sweep: Path, precious: Path) -> None:
    precious.write_bytes(b"not of a lock\n")
    run = foreign(sweep, "lock", lambda path, target: os.link(target, path), precious)
    with pytest.raises(UserError, match="lock: holds something else than the name of a process; move it"), run.lock():
        pass
    assert precious.read_bytes() == b"not of a lock\n"


@pytest.mark.parametrize("put", [a_link, a_link_to_zeros, a_pipe, a_folder], ids=lambda put: put.__name__)
def test_a_checkpoint_that_is_no_file_is_set_aside(put: Put, tmp_path: Path, precious: Path) -> None:
    name = "step-000000003-0123456789abcdef.pt"
    put(tmp_path / name, precious)
    newest = find_newest(tmp_path)
    assert newest.path is None and name in newest.notes[0] and "foreign (a " in newest.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{n}: &{n} [{', '.join([f'*{m}'] * 10)}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)),
        "[" * 100_000,
        "? [a, b]\n: c\n",
        "a: " + "1" * 10_000 + "\n",
    ],
    ids=["references to references", "brackets", "a list for a key", "a number of many digits"],
)
def test_text_that_unpacks_to_more_than_it_is(text: str, tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    with contextlib.suppress(UserError):
        read_yaml(file, "plan the grid again")
    file.write_text(text.strip())
    with pytest.raises(UserError):
        read_json(file)
    assert read_lines(file).damaged >= 1


@pytest.mark.parametrize("name", ["config.yaml", "attempts.jsonl", "metrics.jsonl", "correct.npz", "result.json"])
def test_a_file_larger_than_any_of_a_run(name: str, sweep: Path, precious: Path) -> None:
    """A hole in a file: it takes no disk, and would take all of the memory."""
    os.truncate(foreign(sweep, name, lambda path, _: path.touch(), precious).path / name, 1 << 40)
    loaded = load_sweep(sweep)
    said = [*loaded.unreadable, *(p for r in loaded.runs for p in r.problems)]
    assert any(f"{name}: 1,099,511,627,776 bytes, and no file of a run has more" in line for line in said)


OUTSIDE = ["../../../README", "/etc/passwd", "a/b", "..", ".", ".hidden", "a\nb", "", "a" * 300]


def changed_grid(sweep: Path, **changed: object) -> None:
    raw = yaml.safe_load((sweep / "grid.yaml").read_text())
    (sweep / "grid.yaml").write_text(yaml.safe_dump(raw | changed))


@pytest.mark.parametrize("name", OUTSIDE, ids=ascii)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", lambda name: name),
        ("figure", lambda name: name),
        ("paper", lambda name: {"source": "Table 2", "values": name}),
        ("searched", lambda name: {"sweep": name, "sha256": "0" * 64, "trials": {}}),
        ("settings_from", lambda name: name),
        ("runs", lambda name: ["resnet18-sgdm-s0", name]),
        ("data", lambda name: name),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names_that_lead_elsewhere_are_refused_when_read(
    key: str, value: Callable[[str], object], name: str, sweep: Path
) -> None:
    changed_grid(sweep, **{key: value(name)})
    with pytest.raises(UserError) as raised:
        read_sweep(sweep)
    line = str(raised.value)
    assert line.startswith(f"{sweep / 'grid.yaml'}: {key}") and "\n" not in line


def test_a_report_writes_into_results_alone(sweep: Path, tmp_path: Path, precious: Path) -> None:
    """One foreign sweep next to one of one's own, which is reported all the same."""
    other = write_grid(tmp_path / "runs", scale="smoke")
    finish(other, make_config("resnet18", "sgdm", scale="smoke"), 50.0)
    changed_grid(other, name="../../home/file", figure=str(precious))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    results = tmp_path / "results"
    report = make(grid=None, runs_dir=tmp_path / "runs", results_dir=results, data=None, scale=None)
    assert len(report.failed) == 1 and f"{other / 'grid.yaml'}: name=../../home/file" in report.failed[0]
    assert (results / sweep.name / "table.md").is_file()
    made = {p for p in tmp_path.rglob("*") if p.is_file()} - before.keys()
    assert made and all(p.is_relative_to(results) for p in made)
    assert {p: p.read_bytes() for p in before} == before
    assert Sweeps(tmp_path / "runs").get(other.name) is None


def test_results_that_lead_elsewhere(sweep: Path, tmp_path: Path, precious: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / sweep.name).symlink_to(precious.parent)
    with pytest.raises(UserError, match="a link or a file and no folder"):
        make(grid="table2", runs_dir=tmp_path / "runs", results_dir=tmp_path / "results", data=None, scale=None)
    assert [p.name for p in precious.parent.iterdir()] == ["file"]


def test_names_of_networks_stay_in_names_of_figures() -> None:
    class Search:
        models = ("../../../home/file", "a.b:C")

    assert all("/" not in name and name.startswith("search-") for name in figure_names(Search()))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["../other/run", "/etc", "..", ".x", "a/b", ""], ids=ascii)
def test_lists_of_runs(name: str, tmp_path: Path, sweep: Path) -> None:
    file = tmp_path / "runs" / sweep.name / "slurm" / "list.txt"
    file.parent.mkdir()
    file.write_text(f"resnet18-sgdm-s0\n{name}\n")
    with pytest.raises(UserError, match="names no folder next to this one"):
        read_names(file)
    script = ROOT / "slurm" / "run.sbatch"
    env = {"PATH": "/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "1", "SLURM_SUBMIT_DIR": "/"}
    done = subprocess.run(["bash", str(script), str(file)], env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == f"{file}: {name}: no run of this sweep\n"


def test_what_a_foreign_run_says_of_itself_is_text(sweep: Path, precious: Path) -> None:
    """Numbers that are none, and records of other shapes."""
    run = foreign(
        sweep, "metrics.jsonl", lambda path, _: path.write_text('{"epoch": [], "split": "val"}\n[]\n'), precious
    )
    (run.path / "attempts.jsonl").write_text(json.dumps({"attempt": 10**400, "start": {"a": 1}}) + "\n")
    assert {s.run for s in snapshot([sweep], {sweep: NO_SLURM})} >= {run.path.name}
    assert len(load_sweep(sweep).runs) == 2
