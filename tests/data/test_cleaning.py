"""Odd rows are kept where they can be, and counted either way."""

from __future__ import annotations

from typing import Any

import models
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlace.data.cleaning import Counts, clean_row
from interlace.params.inputs import Data

Row = dict[str, Any]
PICTURE = models.picture(0, side=8)


def row(*turns: tuple[str | None, str | None], images: int = 0, **others: Any) -> Row:
    return {
        "images": [{"bytes": PICTURE, "path": None}] * images,
        "texts": [{"user": user, "assistant": assistant} for user, assistant in turns],
        "source": "made_up",
    } | others


def clean(given: Row, **data: Any) -> tuple[Row | None, Counts]:
    counts = Counts()
    return clean_row(given, "subset", Data(id="x", **data), counts), counts


def users(found: Row | None) -> list[str]:
    assert found is not None
    return [text["user"] for text in found["texts"]]


def test_a_sound_row_is_kept_as_it_is() -> None:
    given = row(("ask", "say"), ("more", "said"), images=2, relevance_ratings=[5, 4])
    found, counts = clean(given)
    assert found is not None
    assert {name: found[name] for name in ("images", "texts", "source")} == {
        name: given[name] for name in ("images", "texts", "source")
    }
    assert (counts.left_out, counts.odd) == ({}, {})


def test_more_than_three_images_leave_a_row_out() -> None:
    assert clean(row(("a", "b"), images=3))[0] is not None
    found, counts = clean(row(("a", "b"), images=4))
    assert found is None
    assert counts.left_out == {"more than 3 images": 1}


def test_turns_after_the_third_are_cut() -> None:
    found, counts = clean(row(*((str(i), "x") for i in range(5)), relevance_min=1))
    assert users(found) == ["0", "1", "2"]
    assert counts.odd == {"cut after turn 3": 1}


@pytest.mark.parametrize("empty", [("", "x"), (None, "x"), ("x", " \n"), ("x", None)])
def test_a_conversation_is_cut_at_an_empty_turn(empty: tuple[str | None, str | None]) -> None:
    found, counts = clean(row(("0", "x"), empty, ("2", "x"), relevance_min=1))
    assert users(found) == ["0"]
    assert counts.odd == {"cut at an empty turn": 1}


@pytest.mark.parametrize("texts", [None, [], [None], [{"user": "", "assistant": "a"}]])
def test_a_row_without_a_first_turn_is_left_out(texts: Any) -> None:
    found, counts = clean(row() | {"texts": texts})
    assert found is None
    assert counts.left_out == {"the first turn has no question or no answer": 1}


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("<image>\nWhat is it?", "What is it?"),
        ("What is it?\n<image>", "What is it?"),
        ("<image_1> and <image 2>: which?", "and : which?"),
        ("<|vision_start|><|image_pad|><|vision_end|>Say", "Say"),
        ("[IMG]<img></img><start_of_image>Say", "Say"),
        ("x <|im_end|> y", "x  y"),
    ],
)
def test_placeholders_and_control_tokens_are_taken_out(said: str, wanted: str) -> None:
    found, counts = clean(row((said, "b"), relevance_min=1))
    assert users(found) == [wanted]
    assert counts.odd == {"freed of placeholders and control tokens": 1}


def test_a_turn_of_placeholders_alone_is_empty() -> None:
    found, counts = clean(row(("<image>", "b")))
    assert found is None
    assert sum(counts.left_out.values()) == 1


@pytest.mark.parametrize(
    "said",
    ["Qu'est-ce ?", "这是什么?", "ما هذا؟", "👩‍👩‍👧‍👦 🇳🇴 ?", "a < b and c > d", "x\u0000y", "<b>"],
)
def test_other_scripts_emoji_and_signs_stay_as_they_are(said: str) -> None:
    found, counts = clean(row((said, said), relevance_min=1))
    assert found is not None
    assert found["texts"] == [{"user": said, "assistant": said}]
    assert counts.odd == {}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text("<|>[]/_ aAimgIMG1é字\n", min_size=1, max_size=12).filter(str.strip))
def test_text_is_kept_or_freed_of_placeholders_but_never_rewritten(said: str) -> None:
    found, counts = clean(row((said, "a"), relevance_min=1))
    assert counts.odd or counts.left_out or users(found) == [said]


@pytest.mark.parametrize("source", [None, "", "  "])
def test_a_row_without_a_source_is_named_after_its_subset(source: str | None) -> None:
    found, counts = clean(row(("a", "b"), source=source, relevance_min=1))
    assert found is not None
    assert found["source"] == "subset"
    assert counts.odd == {"named after its subset, having no source": 1}


@pytest.mark.parametrize(
    "image", [None, {"bytes": None, "path": "a.png"}, {"bytes": b""}, {"bytes": PICTURE[:60]}]
)
def test_a_row_with_a_broken_image_is_left_out(image: Any) -> None:
    found, counts = clean(row(("a", "b")) | {"images": [image]})
    assert found is None
    assert sum(counts.left_out.values()) == 1


def test_a_row_without_images_may_hold_null() -> None:
    found, _ = clean(row(("a", "b")) | {"images": None})
    assert found is not None
    assert found["images"] == []


def test_missing_ratings_are_no_reason_to_leave_a_row_out() -> None:
    found, counts = clean(row(("a", "b")), min_ratings={"relevance": 5})
    assert found is not None
    assert counts.odd == {"without ratings": 1}


@pytest.mark.parametrize(("least", "kept"), [(2, True), (3, False)])
def test_rows_are_filtered_by_the_lowest_rating_of_their_turns(least: int, kept: bool) -> None:
    given = row(("a", "b"), ("c", "d"), formatting_ratings=[5, 2], formatting_min=2)
    found, counts = clean(given, min_ratings={"formatting": least})
    assert (found is not None) == kept
    assert sum(counts.left_out.values()) == (not kept)


def test_ratings_of_turns_that_are_cut_do_not_count() -> None:
    given = row(("a", "b"), ("c", "d"), formatting_ratings=[5, 1], formatting_min=1)
    found, _ = clean(given, max_turns=1, min_ratings={"formatting": 4})
    assert found is not None
    assert (found["formatting_ratings"], found["formatting_min"]) == ([5], 5)


def test_ratings_may_be_floats_or_not_a_number() -> None:
    found, _ = clean(row(("a", "b"), relevance_min=4.0, formatting_min=float("nan")))
    assert found is not None
    assert (found["relevance_min"], found["formatting_min"]) == (4, None)
