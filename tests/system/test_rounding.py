"""Metrics are rounded to what they mean, so that processors agree on them."""

from __future__ import annotations

import math

import pytest

from interlace.system.rounding import cosine, numbers_rounded, significant


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.026426734850388163, "0.02643"),  # a loss, on two processors
        (0.02642674963603648, "0.02643"),
        (93.57575757575756, "93.58"),
        (100.00000000000001, "100.0"),
        (-0.00519872828, "-0.005199"),
        (1234.5, "1234.0"),
        (5.86754953789681e-08, "5.868e-08"),
        (0.0, "0.0"),
    ],
)
def test_a_number_keeps_its_first_four_digits(value: float, text: str) -> None:
    assert str(significant(value)) == text
    assert significant(significant(value)) == significant(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8909183513491301, "0.891"),
        (0.9933624423803988, "0.99336"),
        (0.99998765432, "0.9999877"),  # a deep model's layers differ in their nines
        (-0.23456, "-0.23"),
        (1.0, "1.0"),
    ],
)
def test_a_cosine_keeps_three_digits_of_its_distance_from_one(value: float, text: str) -> None:
    assert str(cosine(value)) == text
    assert abs(cosine(value) - value) <= 0.005 * abs(1 - value)  # within a standard error


def test_what_is_no_fraction_stays() -> None:
    values = {"steps": 123456, "none": None, "text": "x", "loss": 0.123456, "bad": math.inf}
    assert numbers_rounded(values) == values | {"loss": 0.1235}


def test_a_number_keeps_no_more_digits_than_its_error_has_meaning() -> None:
    on_one = {"rise": 0.0021918935470200017, "rise_error": 0.0041830595759202276}
    on_another = {"rise": 0.0021920870807924926, "rise_error": 0.004183081788423159}
    assert numbers_rounded(on_one) == numbers_rounded(on_another)
    assert numbers_rounded(on_one) == {"rise": 0.00219, "rise_error": 0.004183}
    exact = {"score": 100.00000000000001, "score_error": 0.0}
    assert numbers_rounded(exact) == {"score": 100.0, "score_error": 0.0}
