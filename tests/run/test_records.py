"""Values of records that may hold anything."""

import math

import pytest

from adarem.run.records import count, number, section, text


@pytest.mark.parametrize(("value", "expected"), [(3, 3.0), (2.5, 2.5), (True, None), ("3", None), (None, None)])
def test_a_number_is_no_flag_and_no_text(value: object, expected: float | None) -> None:
    assert number({"loss": value}, "loss") == expected
    assert number({}, "loss") is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_is_finite(value: float) -> None:
    assert number({"loss": value}, "loss") is None


@pytest.mark.parametrize(("value", "expected"), [(3, 3), (3.0, None), (True, None), ("3", None)])
def test_a_count_is_an_integer(value: object, expected: int | None) -> None:
    assert count({"epoch": value}, "epoch") == expected


def test_text_of_an_absent_value_is_empty() -> None:
    assert text({"host": "n1"}, "host") == "n1" and text({"host": None}, "host") == "" and text({}, "host") == ""


def test_a_section_that_is_no_mapping_is_empty() -> None:
    assert section({"versions": {"torch": "2"}}, "versions") == {"torch": "2"}
    assert section({"versions": [1]}, "versions") == {}
