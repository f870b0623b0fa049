import json
import os
import pty
import resource
import select
import subprocess
import sys
import time

import pytest

from adarem.launch.status import status
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from tests.support.sweeps import diverge, finish, make_config, start, write_epochs, write_grid


@pytest.fixture
def campaign(dirs):
    folder = write_grid(dirs[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.5)
    diverge(folder, make_config("resnet18", "adam"))
    config = make_config("resnet18", "adarem")
    run = RunDir(folder / config.cell)
    run.freeze(config)
    start(run, host="elsewhere", slurm_job="12_3")
    write_epochs(run, 11, 60.0)
    run.write_progress(
        {"epoch": 12, "epochs": 100, "step": 1, "steps": 9, "loss": 2.345, "images_per_s": 9123.4, "seconds_left": 3723}
    )
    config = make_config("resnet18", "adamw")
    RunDir(folder / config.cell).freeze(config)
    return folder


def test_plain_table(dirs, campaign, capsys):
    assert status(runs_dir=dirs[0], grid="table2") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:5] == [
        ["cell", "state", "job", "epoch", "loss", "top-1", "images/s", "left"],
        ["resnet18-adam-s0", "diverged", "—", "3/100", "5.435", "0.57", "9,000", "—"],
        ["resnet18-adamw-s0", "planned", "—", "0/100", "—", "—", "—", "—"],
        ["resnet18-adarem-s0", "running", "12_3", "12/100", "2.345", "21.36", "9,123", "1:02:03"],
        ["resnet18-sgdm-s0", "done", "—", "100/100", "1.000", "70.50", "9,000", "—"],
    ]
    assert " ".join(lines[6]) == "4 cells: 1 diverged, 1 planned, 1 running, 1 done"
    assert " ".join(lines[7]) == "table2/resnet18-adam-s0: diverged: loss is nan"


def test_json(dirs, campaign, capsys):
    status(runs_dir=dirs[0], as_json=True)
    cells = {c["cell"]: c for c in json.loads(capsys.readouterr().out)}
    assert cells["resnet18-adarem-s0"] == {
        "campaign": "table2", "cell": "resnet18-adarem-s0", "state": "running", "job": "12_3", "epoch": 12,
        "epochs": 100, "loss": 2.345, "top1": pytest.approx(60 * (1 - 2.718281828 ** -0.44)), "images_per_s": 9123.4,
        "seconds_left": 3723, "problem": None, "perplexity": None, "tokens_per_s": None,
    }  # fmt: skip


def test_a_damaged_run_is_shown(dirs, campaign, capsys):
    (campaign / "resnet18-adamw-s0" / "config.yaml").write_text("grid: [")
    status(runs_dir=dirs[0])
    out = capsys.readouterr().out
    assert "unreadable" in out and "resnet18-adamw-s0/config.yaml: not valid YAML" in out


def test_a_damaged_result_is_the_problem_shown(dirs, campaign, capsys):
    """The attempt of a run whose result was cut or edited since ended well, so it has nothing to say."""
    results = {}
    for name, damage in (("cut", lambda text: text[:40]), ("edited", lambda text: text.replace("70.5", "71.5"))):
        run = finish(campaign, make_config("resnet18", "sgdm", 1 + len(results)), 70.5)
        run.result_file.write_text(damage(run.result_file.read_text()))
        results[run.path.name] = name
    status(runs_dir=dirs[0], as_json=True)
    problems = {c["cell"]: (c["state"], c["problem"]) for c in json.loads(capsys.readouterr().out)}
    for cell, name in results.items():
        state, problem = problems[cell]
        assert state == "failed" and problem.startswith(f"{campaign / cell / 'result.json'}: ")
        assert ("not readable as JSON" if name == "cut" else "checksum differs") in problem


def test_a_directory_without_a_config_is_listed(dirs, campaign, capsys):
    (campaign / "resnet18-adamw-s0" / "config.yaml").unlink()
    RunDir(campaign / "resnet18-adamw-s0").append_metrics({"epoch": 1, "split": "train"})
    (campaign / "slurm").mkdir()
    (campaign / "slurm" / "12_0.out").write_text("")
    status(runs_dir=dirs[0])
    out = capsys.readouterr().out
    assert "resnet18-adamw-s0   unreadable" in out and "resnet18-adamw-s0: no config.yaml there" in out
    assert "4 cells: " in out


def test_a_file_of_the_wrong_shape_spoils_only_its_own_line(dirs, campaign, capsys):
    (campaign / "resnet18-adarem-s0" / "attempts.jsonl").write_text('{"attempt": 1, "start": "noon"}\n')
    status(runs_dir=dirs[0])
    out = capsys.readouterr().out
    assert "resnet18-adarem-s0  unreadable" in out and "resnet18-sgdm-s0    done" in out


def test_no_such_campaign_is_one_line(dirs, campaign):
    with pytest.raises(UserError, match="no runs of table1 there; `adarem launch grid=table1` makes some"):
        status(runs_dir=dirs[0], grid="table1")


def test_cells_waiting_in_slurm(dirs, campaign, monkeypatch, capsys):
    from adarem.launch.slurm import jobs as slurm

    slurm.folder(campaign).mkdir()
    monkeypatch.setattr(slurm, "queued", lambda folder, patience: {"resnet18-adamw-s0": "40_1"})
    status(runs_dir=dirs[0])
    assert "resnet18-adamw-s0   queued    40_1" in capsys.readouterr().out

    def silent(folder, patience: float):
        raise UserError("squeue does not answer")

    monkeypatch.setattr(slurm, "queued", silent)
    status(runs_dir=dirs[0])
    assert "resnet18-adamw-s0   planned" in capsys.readouterr().out


CODE = (
    "import sys, pathlib; from adarem.launch.status import status; status(runs_dir=pathlib.Path(sys.argv[1])); "
    "print([m for m in ('torch', 'pandas', 'hydra', 'numpy') if m in sys.modules])"
)


def test_answers_at_once_and_without_torch(dirs, campaign):
    took = []
    for _ in range(5):  # the best of five, in processor time: other tests share the cores
        began = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        done = subprocess.run([sys.executable, "-c", CODE, str(dirs[0])], capture_output=True, text=True)
        took.append(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - began)
        assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert min(took) < 0.3


def test_the_live_table_ends_when_the_last_cell_does(dirs, campaign):
    """On a real terminal: shown, refreshed, and over once nothing runs."""
    leader, follower = pty.openpty()
    code = CODE.replace(
        "from adarem.launch.status",
        "import adarem.launch.status as s; s.REFRESH_SECONDS = 0.1; from adarem.launch.status",
    )
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen([sys.executable, "-c", code, str(dirs[0])], stdout=follower, stderr=follower, env=env)
    os.close(follower)
    try:
        shown = _read_until(leader, b"running", PATIENCE)
        run = RunDir(campaign / "resnet18-adarem-s0")
        run.write_result({"status": "done", "top1": 71.23, "train_loss": 0.9, "images_per_s": 9000.0})
        shown += _read_until(leader, None, PATIENCE)
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    text = shown.decode()
    assert "71.23" in text and "2 done" in text


PATIENCE = 60.0  # seconds; a busy machine starts Python in several


def _read_until(terminal: int, word: bytes | None, seconds: float) -> bytes:
    """What a terminal shows up to a word, or up to its end; fails when that takes too long."""
    shown, deadline = b"", time.monotonic() + seconds
    while word is None or word not in shown:
        left = deadline - time.monotonic()
        assert left > 0 and select.select([terminal], [], [], left)[0], f"after {seconds:g} s only: {shown[-500:]!r}"
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux's way to say that the other side is closed
            chunk = b""
        if not chunk:
            assert word is None, f"ended without {word!r}: {shown[-500:]!r}"
            break
        shown += chunk
    return shown
