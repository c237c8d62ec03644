from __future__ import annotations

import pytest

from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS, find_benchmark


def test_twelve_benchmarks_in_four_categories() -> None:
    categories = {benchmark.category for benchmark in BENCHMARKS.values()}
    assert categories == {"Text/Chart", "GVQA", "Perception", "Inst&Sci"}
    assert len(BENCHMARKS) == 12


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("V*", "VStar"), ("mia-bench", "MIABench"), ("HRBench 4K", "HRBench4K"), ("ai2d", "AI2D")],
)
def test_case_and_punctuation_of_a_name_do_not_count(spelling: str, name: str) -> None:
    assert find_benchmark(spelling).name == name


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'TextQA'.*'TextVQA'"):
        find_benchmark("TextQA")
