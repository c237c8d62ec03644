from __future__ import annotations

import pytest

from interlace.errors import InputError
from interlace.evaluation.benchmarks import BENCHMARKS, find_benchmark, without_judge
from interlace.evaluation.heldout import is_exact_match


def test_twelve_benchmarks_in_four_categories() -> None:
    assert len(BENCHMARKS) == 12
    assert {benchmark.category for benchmark in BENCHMARKS.values()} == {
        "Text/Chart",
        "GVQA",
        "Perception",
        "Inst&Sci",
    }


@pytest.mark.parametrize(
    ("given", "name"),
    [("V*", "VStar"), ("mia-bench", "MIABench"), ("HRBench 4K", "HRBench4K"), ("ai2d", "AI2D")],
)
def test_case_and_punctuation_of_a_name_do_not_count(given: str, name: str) -> None:
    assert find_benchmark(given).name == name


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'TextVQA'"):
        find_benchmark("TextQA")


def test_benchmarks_that_may_need_a_judge_say_so() -> None:
    assert {name for name, known in BENCHMARKS.items() if without_judge(known)} == {
        "MIABench",
        "HRBench4K",
        "HRBench8K",
    }


@pytest.mark.parametrize(
    ("answer", "target", "same"),
    [
        (" Red. ", "red", True),
        ("3", "3.", True),
        ("Straße", "STRASSE", True),
        ("3.5", "35", False),
        ("red red", "red", False),
        ("", "red", False),
    ],
)
def test_exact_match_ignores_space_case_and_a_last_full_stop(
    answer: str, target: str, same: bool
) -> None:
    assert is_exact_match(answer, target) is same
