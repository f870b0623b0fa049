"""Text tables in columns."""

from adarem.run.text import aligned


def test_columns_are_aligned() -> None:
    assert aligned([("run", "top-1"), ("a-long-name", "7")], right={1}) == ["run          top-1", "a-long-name      7"]
    assert aligned([("a", "bb"), ("ccc", "")]) == ["a    bb", "ccc"]
    assert aligned([]) == []
