"""Odd rows are kept if they can be, and counted either way."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from drawn_rows import PICTURE, Row
from hypothesis import given
from hypothesis import strategies as st

from interlace.data.cleaning import Counts, clean_row
from interlace.params.inputs import Data


def row(*turns: tuple[str | None, str | None], images: int = 0, **columns: Any) -> Row:
    """A row of rated turns."""
    return {
        "images": [PICTURE] * images,
        "texts": [{"user": user, "assistant": assistant} for user, assistant in turns],
        "source": "made_up",
        "relevance_min": 1,
    } | columns


def clean(source_row: Row, **data: Any) -> tuple[Row, Counts]:
    """Clean a row; one that is skipped comes back empty."""
    counts = Counts()
    return clean_row(source_row, "subset", Data(id="x", **data), counts) or {}, counts


def users(cleaned: Row) -> list[str]:
    return [text["user"] for text in cleaned["texts"]]


def test_a_sound_row_is_kept_as_it_is() -> None:
    sound = row(("ask", "say"), ("more", "words"), images=2, relevance_ratings=[5, 4])
    cleaned, counts = clean(sound)
    assert all(cleaned[name] == sound[name] for name in ("images", "texts", "source"))
    assert (counts.left_out, counts.odd) == ({}, {})


BROKEN_IMAGES = [None, {"bytes": None}, {"bytes": b""}, {"bytes": PICTURE["bytes"][:60]}]
NO_TURNS = [None, [], [None], [{"user": "", "assistant": "a"}], [{"user": "<image>"}]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": [PICTURE] * 4}, "more than 3 images"),
        *(({"images": [image]}, "") for image in BROKEN_IMAGES),
        *(({"texts": texts}, "the first turn has no question or no answer") for texts in NO_TURNS),
    ],
)
def test_an_unfit_row_is_skipped_and_counted(change: Row, reason: str) -> None:
    cleaned, counts = clean(row(("a", "b"), images=3) | change)
    assert not cleaned
    ((counted, rows),) = counts.left_out.items()
    assert rows == 1 and counted.startswith(reason)


ODD_TURNS = {
    "cut after turn 3": [([(str(i), "x") for i in range(5)], ["0", "1", "2"])],
    "cut at an empty turn": [
        ([("0", "x"), empty, ("2", "x")], ["0"])
        for empty in (("", "x"), (None, "x"), ("x", " \n"), ("x", None))
    ],
    "freed of placeholders and control tokens": [
        ([("What is it?\n<image>", "b")], ["What is it?"]),
        ([("<image_1> and <image 2>: which?", "b")], ["and : which?"]),
        ([("<|vision_start|><|image_pad|><|vision_end|>Say", "b")], ["Say"]),
        ([("[IMG]<img></img><start_of_image>Say", "b")], ["Say"]),
        ([("x <|im_end|> y", "b")], ["x  y"]),
    ],
}


@pytest.mark.parametrize(
    ("oddity", "turns", "words"),
    [(oddity, *case) for oddity, cases in ODD_TURNS.items() for case in cases],
)
def test_odd_turns_are_mended_and_counted(oddity: str, turns: list[Any], words: list[str]) -> None:
    cleaned, counts = clean(row(*turns))
    assert users(cleaned) == words
    assert counts.odd == {oddity: 1}


@pytest.mark.parametrize(
    "text", ["Qu'est-ce ?", "👩‍👩‍👧‍👦 🇳🇴 ?", "a < b and c > d", "x\u0000y", "<b>"]
)
def test_scripts_emoji_and_signs_stay_as_they_are(text: str) -> None:
    cleaned, counts = clean(row((text, text)))
    assert cleaned["texts"] == [{"user": text, "assistant": text}]
    assert counts.odd == {}


@given(st.text("<|>[]/_ aAimgIMG1é字\n", min_size=1, max_size=12).filter(str.strip))
def test_text_is_kept_or_freed_of_placeholders_but_never_rewritten(text: str) -> None:
    cleaned, counts = clean(row((text, "a")))
    assert counts.odd or counts.left_out or users(cleaned) == [text]


@pytest.mark.parametrize("source", [None, "  "])
def test_a_row_without_a_source_is_named_after_its_subset(source: str | None) -> None:
    cleaned, counts = clean(row(("a", "b"), source=source))
    assert cleaned["source"] == "subset"
    assert counts.odd == {"named after its subset, having no source": 1}


def test_null_images_are_no_images() -> None:
    assert clean(row(("a", "b"), images=0) | {"images": None})[0]["images"] == []


@pytest.mark.parametrize(
    ("least", "odd"), [({"relevance": 5}, {"without ratings": 1}), ({}, {})], ids=["least", "none"]
)
def test_an_unrated_row_is_kept_and_odd_where_ratings_count(
    least: dict[str, int], odd: dict[str, int]
) -> None:
    cleaned, counts = clean(row(("a", "b"), relevance_min=None), min_ratings=least)
    assert cleaned
    assert counts.odd == odd


@pytest.mark.parametrize(
    ("least", "max_turns", "lowest"), [(2, 3, 2), (3, 3, None), (3, 1, 5)], ids=str
)
def test_rows_are_filtered_by_the_lowest_rating_of_their_kept_turns(
    least: int, max_turns: int, lowest: int | None
) -> None:
    rated = row(("a", "b"), ("c", "d"), formatting_ratings=[5, 2], formatting_min=2)
    cleaned, counts = clean(rated, max_turns=max_turns, min_ratings={"formatting": least})
    assert cleaned.get("formatting_min") == lowest
    assert sum(counts.left_out.values()) == (lowest is None)
    assert cleaned.get("formatting_ratings", [5, 2]) == [5, 2][:max_turns]


def test_ratings_may_be_floats_or_not_a_number() -> None:
    cleaned, _ = clean(row(("a", "b"), relevance_min=4.0, formatting_min=float("nan")))
    assert (cleaned["relevance_min"], cleaned["formatting_min"]) == (4, None)


@pytest.mark.parametrize(
    ("ratings", "lowest"),
    [
        ({"relevance_ratings": 4}, 4),
        ({"relevance_ratings": ["5", " 4.0 "]}, 4),
        ({"relevance_min": Decimal("4.50")}, 4),
        ({"relevance_min": "4"}, 4),
        ({"relevance_min": ""}, None),
        ({"relevance_min": "1"}, "below"),
        ({"relevance_ratings": ["1"]}, "below"),
        ({"relevance_ratings": [5, "high"]}, "no number"),
        *(({"relevance_min": value}, "no number") for value in ("4/5", "nan", float("inf"), 2**70)),
    ],
    ids=str,
)
def test_a_rating_is_read_as_a_number_or_its_row_is_skipped(
    ratings: Row, lowest: int | str | None
) -> None:
    rated = row(("a", "b"), ("c", "d"), relevance_min=None) | ratings
    cleaned, counts = clean(rated, min_ratings={"relevance": 3})
    if isinstance(lowest, str):
        (reason,) = counts.left_out
        assert not cleaned and ("below 3" if lowest == "below" else "not by a number") in reason
    else:
        assert cleaned["relevance_min"] == lowest


def test_a_rating_that_is_no_number_is_dropped_where_nothing_asks_for_it() -> None:
    cleaned, counts = clean(row(("a", "b"), relevance_ratings=["high"]))
    assert (cleaned["relevance_ratings"], cleaned["relevance_min"]) == (None, None)
    assert counts.odd["freed of ratings that are no numbers"] == 1


def test_an_image_that_is_a_path_alone_says_so() -> None:
    _, counts = clean(row(("a", "b")) | {"images": [{"bytes": None, "path": "a.jpg"}]})
    assert list(counts.left_out) == ["an image holds a path and no bytes; embed the files"]
