"""What an attempt says of the code that it ran."""

import subprocess
from pathlib import Path

from adarem.train.provenance import commit_of


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_dirty_means_code_that_differs_from_the_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    for name in ("src/code.py", "results/table.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(tmp_path / "src") == (head, False)
    (tmp_path / "results" / "table.md").write_text("2")  # what a report does
    assert commit_of(tmp_path / "src") == (head, False)
    (tmp_path / "src" / "code.py").write_text("2")
    assert commit_of(tmp_path / "src") == (head, True)


def test_outside_of_a_checkout(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == (None, None)


def test_installed_inside_of_another_projects_checkout(tmp_path: Path) -> None:
    """A virtual environment in a repository of the user's: its commit says nothing of adarem's code."""
    git(tmp_path, "init", "-q")
    (tmp_path / "thesis.tex").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    (tmp_path / ".venv" / "adarem").mkdir(parents=True)
    (tmp_path / ".venv" / "adarem" / "train.py").write_text("1")
    assert commit_of(tmp_path / ".venv" / "adarem") == (None, None)
