"""Clean drawn rows: keep those fit for training, and count the others by the reason.

Nothing odd is fatal and nothing is silent: rows that are skipped or changed are counted under
their fault.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from interlace.model.images import UnfitImage, encoded_bytes, oddities
from interlace.params.inputs import RATINGS, Data

Row = dict[str, Any]

# Image placeholders and control tokens of chat templates: the model's own template adds both.
_PLACEHOLDER = re.compile(
    r"<image(?:[ _]?\d+)?>|</?img>|\[IMG\]|<(?:start|end)_of_image>|<image_soft_token>"
    r"|<\|[A-Za-z0-9_]{1,40}\|>"
)
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")


class UnfitRow(Exception):
    """A row that cannot be trained on; the message is the reason."""


@dataclass
class Counts:
    """Counts of odd rows.

    Attributes:
        left_out: rows that were not kept, by the reason.
        odd: rows that were kept, by what was odd about them; a row may count twice.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)


def clean_row(row: Row, subset: str, data: Data, counts: Counts) -> Row | None:
    """Make a row fit for training.

    Args:
        row: images, texts, source and ratings, as FineVision has them; any may be missing.
        subset: the row's subset, the source of rows without one.
        data: max_images, max_turns, max_image_pixels, min_ratings.
        counts: rows that are skipped or changed are counted in it.

    Returns:
        The row, or `None` if it is skipped.
    """
    odd: set[str] = set()
    try:
        images = list(row.get("images") or ())
        if len(images) > data.max_images:
            raise UnfitRow(f"more than {data.max_images} images")
        texts = _turns(row.get("texts") or (), data.max_turns, odd)
        ratings = _ratings(row, len(texts), data, odd)
        for image in images:
            odd |= set(oddities(encoded_bytes(image), data.max_image_pixels))
    except (UnfitRow, UnfitImage) as reason:
        counts.left_out[str(reason)] += 1
        return None
    source = row.get("source")
    if not isinstance(source, str) or not source.strip():
        source = subset
        odd.add("named after its subset, having no source")
    if data.min_ratings and all(ratings[f"{name}_min"] is None for name in RATINGS):
        odd.add("without ratings")
    counts.odd.update(odd)
    return {
        "images": [_image(image) for image in images],
        "texts": texts,
        "source": source,
    } | ratings


def _image(image: Row) -> Row:
    path = image.get("path")
    return {"bytes": image["bytes"], "path": path if isinstance(path, str) else None}


def _turns(texts: Any, max_turns: int, odd: set[str]) -> list[dict[str, str]]:
    """Cut turns at the limit, or at the first without a question or an answer."""
    turns: list[dict[str, str]] = []
    for text in texts:
        if len(turns) == max_turns:
            odd.add(f"cut after turn {max_turns}")
            break
        turn = {side: (text or {}).get(side) or "" for side in ("user", "assistant")}
        bare = {side: freed(words) for side, words in turn.items()}
        if bare != turn:
            odd.add("freed of placeholders and control tokens")
            turn = bare
        if not turn["user"].strip() or not turn["assistant"].strip():
            odd.add("cut at an empty turn")
            break
        turns.append(turn)
    if not turns:
        raise UnfitRow("the first turn has no question or no answer")
    return turns


def freed(text: str) -> str:
    """Remove image placeholders and control tokens; text without any stays as it is."""
    bare = _PLACEHOLDER.sub("", text)
    return text if bare == text else bare.strip()


def _ratings(row: Row, turns: int, data: Data, odd: set[str]) -> Row:
    """Return the ratings of the turns that are kept, and the lowest of each kind.

    Raises:
        UnfitRow: rated too low, or by no number where `min_ratings` needs one; unrated rows pass.
    """
    ratings: Row = {}
    for name in RATINGS:
        by_turn, lowest = row.get(f"{name}_ratings"), row.get(f"{name}_min")
        least = data.min_ratings.get(name)
        try:
            if by_turn is not None:
                values = by_turn if isinstance(by_turn, list) else [by_turn]
                by_turn = [_number(value) for value in values[:turns]]
                numbers = [value for value in by_turn if value is not None]
                lowest = min(numbers) if numbers else lowest
            lowest = _number(lowest)
        except ValueError:
            if least is not None:
                raise UnfitRow(f"rated for {name}, but not by a number") from None
            odd.add("freed of ratings that are no numbers")
            by_turn = lowest = None
        if least is not None and lowest is not None and lowest < least:
            raise UnfitRow(f"rated below {least} for {name}")
        ratings |= {f"{name}_ratings": by_turn, f"{name}_min": lowest}
    return ratings


def _number(value: Any) -> int | None:
    """Return a rating, rounded down; `None` for a missing one: NaN, or text without characters.

    Raises:
        ValueError: it is no finite number, or larger than any rating.
    """
    if isinstance(value, str):
        value = value.strip()
        if value and not _NUMBER.fullmatch(value):
            raise ValueError(value)
        value = float(value) if value else None
    if value is None or value != value:  # NaN
        return None
    if abs(value) >= 2**63:
        raise ValueError(value)
    return int(value)
