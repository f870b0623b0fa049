"""Text tables in columns."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from adarem.run.text import aligned, typed


def test_columns_are_aligned() -> None:
    assert aligned([("run", "top-1"), ("a-long-name", "7")], right={1}) == ["run          top-1", "a-long-name      7"]
    assert aligned([("a", "bb"), ("ccc", "")]) == ["a    bb", "ccc"]
    assert aligned([]) == []


@pytest.mark.parametrize(
    "value", ["/data/birds", "my flowers (2)", "花", 'a"b', "it's", "a,b", "$HOME", "back\\slash", "end\\", 'quote\\"']
)
def test_what_is_typed_survives_the_shell_and_hydra(value: str) -> None:
    (word,) = shlex.split(typed("data.root", value))
    (override,) = OverridesParser.create().parse_overrides([word])
    assert (override.key_or_group, str(override.value())) == ("data.root", value)
