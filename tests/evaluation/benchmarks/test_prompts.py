from __future__ import annotations

from typing import Any

import pytest

from interlace.evaluation.benchmarks.catalogue import BENCHMARKS
from interlace.evaluation.benchmarks.prompts import options_of, reasoning_prompt

PLACES = {"A": "left", "B": "right"}
LISTED = "Options:\nA. left\nB. right\nPlease select the correct answer from the options above. \n"
STEM = f"Question: Where?\n{LISTED}"
VSTAR = (
    "Where?\n(A) left\n(B) right\nAnswer with the option's letter from the given choices directly."
)
REAL = "Where?\n\nA. left\nB. right\nPlease answer directly with only the letter of the option."


@pytest.mark.parametrize(
    ("name", "row", "prompt"),
    [
        ("AI2D", {"options": ["left", "right"]}, STEM),
        ("ScienceQA", {"choices": ["left", "right"], "hint": ""}, STEM),
        ("ScienceQA-IMG", {"choices": ["left", "right"], "hint": "Look."}, f"Hint: Look.\n{STEM}"),
        ("MMBench-V1.1", PLACES | {"C": "nan", "D": None, "hint": "nan"}, STEM),
        ("MMBench", PLACES | {"C": float("nan"), "hint": "Look."}, f"Hint: Look.\n{STEM}"),
        ("HRBench4K", PLACES, STEM),
        ("VStar", {"text": VSTAR}, STEM),
        ("VStar", {"text": "Where? (A) left (B) right"}, STEM),
        ("RealWorldQA", {"question": REAL}, REAL),
        ("ChartQA", {}, "Where?\nAnswer the question using a single word or phrase."),
        ("TextVQA", {}, "Where?\nAnswer the question using a single word or phrase."),
        ("POPE-F1", {}, "Where? Please answer yes or no."),
        ("OCRBench-Enlarged", {}, "Where?"),
        ("MIABench", {"instruction": "Tell."}, "Tell."),
    ],
)
def test_prompts_are_those_of_vlmevalkit(name: str, row: dict[str, Any], prompt: str) -> None:
    assert reasoning_prompt(BENCHMARKS[name], {"question": "Where?"} | row) == prompt


@pytest.mark.parametrize(
    ("name", "row", "options"),
    [
        ("RealWorldQA", {"question": REAL}, PLACES),
        ("RealWorldQA", {"question": "How many?\nAnswer with a number."}, {}),
        ("VStar", {"text": VSTAR}, PLACES),
        ("POPE", {"question": "A?"}, {}),
    ],
)
def test_a_question_s_options(name: str, row: dict[str, Any], options: dict[str, str]) -> None:
    assert options_of(BENCHMARKS[name], row) == options
