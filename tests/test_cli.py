"""The command line as a user types it."""

import argparse
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.run import exitcodes

VERBS = ("init", "doctor", "prepare", "plan", "launch", "status", "train", "report", "compare", "wandb")
Command = Callable[..., subprocess.CompletedProcess[str]]


def test_help_lists_every_verb(adarem_command: Command) -> None:
    text = adarem_command("--help").stdout
    assert all(verb in text for verb in VERBS)
    for verb in VERBS:
        done = adarem_command(verb, "--help")
        assert done.returncode == 0 and "usage: adarem" in done.stdout


def test_help_imports_no_verbs_libraries() -> None:
    code = (
        "import sys; from adarem.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert "adarem" in loaded and not loaded & {
        "yaml",
        "pydantic",
        "rich",
        "numpy",
        "pandas",
        "torch",
        "hydra",
        "wandb",
    }


def test_a_failing_file_system_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A transient fault may be gone when the job starts again; what is no fault of the place is one of the program."""
    from adarem import cli

    for number, code in ((errno.ENOSPC, exitcodes.USER_ERROR), (errno.ESTALE, exitcodes.FAILED)):
        error = OSError(number, os.strerror(number), "/data/x")
        monkeypatch.setattr(cli, "_status", raising(error))
        assert cli.main(["status"]) == code
        line = f"adarem status: /data/x: {os.strerror(number)}; fix that, then rerun the command\n"
        assert capsys.readouterr().err == line
    monkeypatch.setattr(cli, "_status", raising(OSError(errno.EBADF, "bad")))
    with pytest.raises(OSError, match="bad"):
        cli.main(["status"])


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from adarem import cli

    missing = ModuleNotFoundError("No module named 'no_such_package'", name="no_such_package")
    monkeypatch.setattr(cli, "_status", raising(missing))
    assert cli.main(["status"]) == exitcodes.USER_ERROR
    line = "adarem status: no_such_package: not installed; run `pip install 'adarem[harness]'`\n"
    assert capsys.readouterr().err == line
    monkeypatch.setattr(cli, "_status", raising(RuntimeError("of the program")))
    with pytest.raises(RuntimeError, match="of the program"):
        cli.main(["status"])


def raising(error: Exception) -> Callable[[object], int]:
    def run(args: object) -> int:
        raise error

    return run


def test_plan_shows_the_runs_before_anything_starts(adarem_command: Command, tmp_path: Path) -> None:
    arguments = (
        "plan",
        "grid=table2",
        "data=digits",
        "optimizer.weight_decay=5e-4",
        "seeds=[0,1,2]",
        f"runs_dir={tmp_path}",
    )
    dry = adarem_command(*arguments, "--dry-run")
    assert dry.returncode == 0 and not list(tmp_path.iterdir())
    assert "18 runs, 18 new" in dry.stdout and "resnet18-adarem-weight_decay=0.0005-s2" in dry.stdout
    assert "REHEARSAL" in dry.stdout
    real = adarem_command(*arguments)
    assert real.stdout == dry.stdout
    assert len(list((tmp_path / "table2-digits").glob("*/config.yaml"))) == 18
    again = adarem_command(*arguments)
    assert "18 runs, 0 new" in again.stdout and "planned" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("plan", "grid=tabel2"),
            "adarem plan: grid=tabel2: no such file configs/grid/tabel2.yaml; did you mean 'table2'?",
        ),
        (
            ("launch", "data=digits", "optimizer.lr=-1"),
            "adarem launch: optimizer.lr=-1.0: needs a number above 0",
        ),
        (("train", "/nowhere"), "adarem train: /nowhere: no config.yaml there, so no run; `adarem plan` makes runs"),
        (
            ("report", "gird=table2"),
            "adarem report: 'gird=table2': not a setting of this command; did you mean 'grid'?",
        ),
        (("status", "runs_dir"), "adarem status: 'runs_dir': not a setting of this command"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    adarem_command: Command, arguments: tuple[str, ...], message: str
) -> None:
    done = adarem_command(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_verb_is_argparses_own_error(adarem_command: Command) -> None:
    done = adarem_command("trian", "x")
    assert done.returncode == 2 and "invalid choice: 'trian'" in done.stderr


def test_status_answers_as_json(adarem_command: Command, tmp_path: Path) -> None:
    adarem_command("plan", "data=digits", f"runs_dir={tmp_path}", "optimizer=adam,adarem")
    done = adarem_command("status", f"runs_dir={tmp_path}", "--json")
    assert done.returncode == 0, done.stderr
    assert "planned" in json.dumps(json.loads(done.stdout))


def test_help_says_what_each_action_of_wandb_does(adarem_command: Command) -> None:
    text = " ".join(adarem_command("wandb", "--help").stdout.split())
    for action, does in (
        ("replay", "send runs again"), ("publish", "log the table and figures"), ("workspace", "save a workspace"),
        ("report", "save a report"),
    ):  # fmt: skip
        assert f"{action} {does}" in text
    assert "--mode" in adarem_command("wandb", "publish", "--help").stdout
    assert "--mode" not in adarem_command("wandb", "workspace", "--help").stdout


def test_options_stand_anywhere_between_settings(adarem_command: Command, tmp_path: Path) -> None:
    settings = ["grid=table2", "data=digits", "scale=smoke", f"runs_dir={tmp_path / 'runs'}", "optimizer=sgdm"]
    for i in range(len(settings) + 1):
        args = cli_parsed(["plan", *settings[:i], "--dry-run", *settings[i:]])
        assert args.dry_run and args.overrides == settings
    args = cli_parsed(["prepare", "data=digits", "--workers", "3", "data.root=x", "--verify", "seeds=[0]"])
    assert (args.workers, args.verify, args.overrides) == (3, True, ["data=digits", "data.root=x", "seeds=[0]"])
    assert cli_parsed(["status", "grid=a", "--json", "data=b"]).settings == ["grid=a", "data=b"]
    for wrong in (["plan", "grid=table2", "--dryrun", "data=digits"], ["train", "runs/x", "runs/y"]):
        done = adarem_command(*wrong)
        assert done.returncode == 2 and f"unrecognized arguments: {wrong[2]}\n" in done.stderr


def test_a_home_is_meant_where_the_shell_leaves_it(monkeypatch: pytest.MonkeyPatch, adarem_command: Command) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert cli_parsed(["train", "~/runs/x"]).run_dir == Path("/home/someone/runs/x")
    assert cli_parsed(["wandb", "publish", "x", "--results-dir=~/r"]).results_dir == Path("/home/someone/r")
    done = adarem_command("status", "runs_dir=~/none", HOME="/home/someone")
    assert "/home/someone/none" in done.stderr


def cli_parsed(words: list[str]) -> argparse.Namespace:
    from adarem import cli

    return cli._parsed(words)
