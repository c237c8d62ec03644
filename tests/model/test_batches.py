"""Prompts in batches; rows that cannot be read are skipped with a reason."""

from __future__ import annotations

from typing import Any

import models
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlace.model.batches import batches, encode_rows


@given(st.lists(st.integers(1, 60), min_size=1, max_size=50), st.integers(1, 200))
def test_batches_stay_within_the_budget_and_cover_every_row(
    lengths: list[int], tokens: int
) -> None:
    groups = batches(lengths, tokens)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        padded = max(lengths[i] for i in group) * len(group)
        assert padded <= tokens or len(group) == 1


BROKEN = {
    "a broken image": ({"images": [{"bytes": b"GIF89a", "path": None}]}, "of no known format"),
    "no image bytes": ({"images": [{"bytes": None, "path": None}]}, "an image is empty"),
    "no turns": ({"texts": []}, "IndexError"),
    "a turn without text": ({"texts": [{"user": None, "assistant": "a"}]}, "has no user text"),
    "a column missing": ({"texts": None}, "TypeError"),
    "a long prompt": (
        {"texts": [{"user": "left " * 900, "assistant": "a"}]},
        "is longer than max_length = 512",
    ),
}


@pytest.mark.parametrize(("damage", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_row_that_cannot_be_read_is_skipped_with_a_reason(
    processor: Any, damage: dict[str, Any], reason: str
) -> None:
    rows = {3: models.row(3), 4: models.row(4) | damage, 5: models.row(5)}
    examples, reasons = encode_rows(processor, rows, 512)
    assert list(examples) == [3, 5] and list(reasons) == [4]
    assert reason in reasons[4]
    assert "\n" not in reasons[4] and "0x" not in reasons[4]


def test_running_out_of_memory_is_no_bad_row(
    processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("interlace.model.chat.encode_prompt", fails)
    with pytest.raises(MemoryError):
        encode_rows(processor, {0: models.row(0)}, 512)
