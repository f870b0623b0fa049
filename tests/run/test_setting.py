import dataclasses
import typing

import pytest

from adarem.run.build import build
from adarem.run.catalog import OPTIMIZERS
from adarem.run.config import RunConfig
from adarem.run.errors import UserError
from adarem.run.setting import AT_LEAST_1, POSITIVE, SHARE_BELOW_1, Choices, Range, Setting


@pytest.mark.parametrize(
    ("allowed", "words", "inside", "outside"),
    [
        (Range(1, 100), "1 to 100", [1, 100], [0, 101, None, "1"]),
        (AT_LEAST_1, "1 or more", [1, 1e9], [0.99]),
        (POSITIVE, "a number above 0", [1e-30], [0, -1]),
        (SHARE_BELOW_1, "0 or more, below 1", [0, 0.99], [1, -0.1]),
        (Choices(("a", True)), "one of a, true", ["a", True], ["b", False]),
    ],
)
def test_a_range_in_words_and_what_is_in_it(allowed: Range, words: str, inside: list, outside: list) -> None:
    assert str(allowed) == words
    assert all(v in allowed for v in inside) and not any(v in allowed for v in outside)


def test_build_checks_the_range_and_lets_none_pass() -> None:
    @dataclasses.dataclass(frozen=True)
    class Group:
        epochs: typing.Annotated[int | None, Setting("of training", AT_LEAST_1)]

    assert build(Group, {"epochs": None}).epochs is None
    with pytest.raises(UserError, match=r"^scale\.epochs=0: needs 1 or more$"):
        build(Group, {"epochs": 0}, "scale")


def groups_of(hint: object) -> list[type]:
    """The dataclass that a hint is or holds, and those inside of it."""
    own = [h for h in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(h)]
    return [g for c in own for g in (c, *(g for h in typing.get_type_hints(c).values() for g in groups_of(h)))]


def test_every_setting_has_a_meaning() -> None:
    groups = [g for g in groups_of(RunConfig) if g is not RunConfig]
    assert len(groups) >= 12
    for group in groups:
        for name, hint in typing.get_type_hints(group, include_extras=True).items():
            if name in ("kind", "hparams", "settings") or groups_of(hint) or typing.get_origin(hint) is typing.Literal:
                continue
            setting = next((n for n in getattr(hint, "__metadata__", ()) if isinstance(n, Setting)), None)
            assert setting and setting.meaning, f"{group.__name__}.{name}"
    assert all(s.meaning for optimizer in OPTIMIZERS.values() for s in optimizer.hparams.values())
