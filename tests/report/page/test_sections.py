"""What the page shows of a run, without the templates. The sections in a browser: test_page.py."""

from pathlib import Path

from adarem.report.page.sections import TAIL_LINES, log_tail
from adarem.run.directory import RunDir


def test_the_tail_of_a_long_log_is_its_last_lines(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert log_tail(run) == ""
    run.log_file.write_text("".join(f"line {i} {'ä' * 40}\n" for i in range(1000)))
    lines = log_tail(run).splitlines()
    assert len(lines) == TAIL_LINES and lines[-1].startswith("line 999 ")


def test_the_tail_is_bounded_in_bytes_and_of_any_encoding(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.log_file.write_bytes(b"\xff" * 100_000 + b"\nthe end\n")
    tail = log_tail(run)
    assert tail.endswith("the end") and len(tail) < 10_000
