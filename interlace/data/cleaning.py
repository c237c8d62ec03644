"""A row as it was drawn -> a row that can be trained on, or the reason why it cannot.

Nothing odd is fatal and nothing is silent: every row that is left out and every row that was
changed is counted under what was wrong with it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from interlace.model.images import UnfitImage, oddities
from interlace.params.inputs import RATINGS, Data

Row = dict[str, Any]

# What stands for an image in the text, and the control tokens of chat templates: the model's own
# template places both.
_PLACEHOLDER = re.compile(
    r"<image(?:[ _]?\d+)?>|</?img>|\[IMG\]|<(?:start|end)_of_image>|<image_soft_token>"
    r"|<\|[A-Za-z0-9_]{1,40}\|>"
)


class UnfitRow(Exception):
    """A row that cannot be trained on; the message is the reason."""


@dataclass
class Counts:
    """Rows by what happened to them.

    Attributes:
        left_out: by the reason.
        odd: rows that are kept, by what was odd about them; one may count twice.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)


def clean_row(row: Row, subset: str, data: Data, counts: Counts) -> Row | None:
    """A row fit for training.

    Args:
        row: images, texts, source and ratings, as FineVision has them; any may be missing.
        subset: where the row was drawn, the source of rows that name none.
        data: max_images, max_turns, max_image_pixels, min_ratings.
        counts: what is left out and what is changed is counted here.

    Returns:
        The row, or none if it is left out.
    """
    odd: set[str] = set()
    try:
        images = list(row.get("images") or ())
        if len(images) > data.max_images:
            raise UnfitRow(f"more than {data.max_images} images")
        texts = _turns(row.get("texts") or (), data.max_turns, odd)
        ratings = _ratings(row, len(texts))
        _check_ratings(ratings, data)
        for image in images:
            odd |= set(oddities((image or {}).get("bytes"), data.max_image_pixels))
    except (UnfitRow, UnfitImage) as reason:
        counts.left_out[str(reason)] += 1
        return None
    source = row.get("source")
    if not isinstance(source, str) or not source.strip():
        source = subset
        odd.add("named after its subset, having no source")
    if all(ratings[f"{name}_min"] is None for name in RATINGS):
        odd.add("without ratings")
    counts.odd.update(odd)
    return {"images": images, "texts": texts, "source": source} | ratings


def _turns(texts: Any, max_turns: int, odd: set[str]) -> list[dict[str, str]]:
    """The turns up to the last one allowed, or the first without a question or an answer."""
    kept: list[dict[str, str]] = []
    for text in texts:
        if len(kept) == max_turns:
            odd.add(f"cut after turn {max_turns}")
            break
        turn = {side: (text or {}).get(side) or "" for side in ("user", "assistant")}
        bare = {side: _PLACEHOLDER.sub("", said) for side, said in turn.items()}
        for side in turn:
            if bare[side] != turn[side]:
                odd.add("freed of placeholders and control tokens")
                turn[side] = bare[side].strip()
        if not turn["user"].strip() or not turn["assistant"].strip():
            odd.add("cut at an empty turn")
            break
        kept.append(turn)
    if not kept:
        raise UnfitRow("the first turn has no question or no answer")
    return kept


def _ratings(row: Row, turns: int) -> Row:
    """The ratings of the turns that are kept, and the lowest of each kind."""
    found: Row = {}
    for name in RATINGS:
        each = row.get(f"{name}_ratings")
        lowest = row.get(f"{name}_min")
        if each is not None:
            each = [_number(value) for value in each[:turns]]
            given = [value for value in each if value is not None]
            lowest = min(given) if given else lowest
        found |= {f"{name}_ratings": each, f"{name}_min": _number(lowest)}
    return found


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and value == value else None  # not NaN


def _check_ratings(ratings: Row, data: Data) -> None:
    """Leave out what is rated too low; what is not rated stays."""
    for name, least in sorted(data.min_ratings.items()):
        value = ratings[f"{name}_min"]
        if value is not None and value < least:
            raise UnfitRow(f"rated below {least} for {name}")
