from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlace.evaluation.run.final_answers import final_option, final_phrase, final_yes_or_no

OPTIONS = {"A": "red car", "B": "blue car", "C": "car", "D": "none of them"}


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("**B. blue car**", "B"),
        ("The answer is B.", "B"),
        ("Based on the picture, a car is left. The correct answer is **B. blue car**.", "B"),
        ("A car is left. Option A is too far. C also. So the answer is (B).", "B"),
        ("A. no\nB. yes, this\nC. no\n\n**Answer:** B", "B"),
        ("Correct answer:\n\n**B**", "B"),
        (r"Hence the answer is \(\boxed{\text{B}}\).", "B"),
        ("A is it. No: <answer>B</answer>", "B"),
        ("The answer is A? It is not. The correct choice would be B", "B"),
        ("The answer is option B because A is wrong", "B"),
        ("**B. blue car**\n\nExplanation: A. is too far.", "B"),
        ("The answer is A because it is red", "A"),
        ("The answer is a red car. A car is no blue car.", "A"),
        ("I see the blue car.", "B"),
        ("I see a car.", "C"),
        ("Based on the picture, the", None),
        ("A. is possible, and B. too", None),
        ("The car is a red car or a blue car", None),
        ("", None),
    ],
)
def test_the_option_that_a_text_ends_on(text: str, option: str | None) -> None:
    assert final_option(text, OPTIONS) == option


def test_options_of_unknown_words_are_letters() -> None:
    assert final_option("Considering all. The answer is D.", {}) == "D"
    assert final_option("The answer is E.", {}) is None


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("14", "14"),
        ("stop sign.", "stop sign."),  # no statement: lmms-eval's rule reads it as it is
        ("3 + 4 = 7. The answer is **7**.", "7"),
        ("The answer is 7? No. The answer is 1.5. It is less.", "1.5"),
        (r"So the answer is $\boxed{12\%}$.", r"12\%"),
        (r"So the answer is \(7\).", "7"),
        ("The answer is **$5**.", "$5"),
        ("**14**", "14"),
        ("The answer is .5", ".5"),
        ('Final answer: "Stop here".', "Stop here"),
        ("The answer is St. Louis.", "St. Louis"),
    ],
)
def test_the_phrase_that_a_text_states_last(text: str, phrase: str) -> None:
    assert final_phrase(text) == phrase


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes", "yes"),
        ("**No**, there is none", "no"),
        ("I see a dog. Yes, there is one.", "yes"),
        ("Yes, perhaps. The answer is: **No**", "no"),
        ("There is no dog, or yes?", None),
        ("maybe", None),
    ],
)
def test_the_yes_or_no_that_a_text_ends_on(text: str, answer: str | None) -> None:
    assert final_yes_or_no(text) == answer


@given(st.text(), st.sampled_from("ABCD"))
def test_whatever_comes_first_the_answer_stated_last_counts(text: str, letter: str) -> None:
    assert final_option(f"{text}\n\nThe answer is {letter}.", OPTIONS) == letter
    assert final_phrase(f"{text}\n\nThe answer is 1{letter}.") == f"1{letter}"
    word = {"A": "yes"}.get(letter, "no")
    assert final_yes_or_no(f"{text}\n\nThe answer is {word}.") == word


def test_a_text_that_repeats_itself_is_read_at_once() -> None:
    assert final_option("The answer is near A or B. " * 5000, OPTIONS) is None
