from __future__ import annotations

import pytest

from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS, find_benchmark
from interlace.evaluation.benchmarks.heldout import is_exact_match


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


def test_only_mia_bench_is_always_judged_and_hrbench_where_an_answer_names_no_option() -> None:
    judged = {name: known.judge for name, known in BENCHMARKS.items() if known.judge != "never"}
    assert judged == {"MIABench": "always", "HRBench4K": "fallback", "HRBench8K": "fallback"}


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
