"""Tokens are the tokenizer's, by source and by domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import pytest
from similarity_rows import rows, stored

from interlace.measurements.token_counts import Tallies, text_tokens, token_sheet
from interlace.samples.rows import write_rows

SOURCES = ("source_0", "source_1", "not_measured")


def drawn(folder: Path, *domains: str) -> list[dict[str, Any]]:
    """Rows of three sources, with two turns each, written into a folder."""
    made = [
        models.row(i, images=i % 2, turns=2, source=SOURCES[i % 3])
        | {"domain": domains[i % len(domains)], "task": "t", "sample_id": f"{i:016x}"}
        for i in range(70)
    ]
    write_rows(iter(made), folder)
    return made


def counted(processor: Any, made: list[dict[str, Any]], **same: str) -> int:
    """Turn by turn, side by side."""
    return sum(
        len(processor.tokenizer.encode(turn[side], add_special_tokens=False))
        for row in made
        if all(row[name] == value for name, value in same.items())
        for turn in row["texts"]
        for side in ("user", "assistant")
    )


def test_the_text_of_every_turn_is_counted(processor: Any, tmp_path: Path) -> None:
    made = drawn(tmp_path / "rows", "math", "nonmath", "math")
    found = text_tokens(processor.tokenizer, tmp_path / "rows")
    assert found.by_source == {name: counted(processor, made, source=name) for name in SOURCES}
    assert found.by_domain == {
        name: counted(processor, made, domain=name) for name in ("math", "nonmath")
    }


def test_no_rows_hold_no_tokens(processor: Any, tmp_path: Path) -> None:
    write_rows(iter([]), tmp_path / "rows")
    found = text_tokens(processor.tokenizer, tmp_path / "rows")
    assert found == Tallies()


def test_image_tokens_are_the_mean_over_measured_rows(processor: Any, tmp_path: Path) -> None:
    frame = rows(samples=9, layers=4, longest=3, domains=("native", "math"))
    stored(tmp_path / "similarity", frame, parts=2)
    one = frame[(frame["first"] == 0) & (frame["span"] == 1)]
    drawn(tmp_path / "train", "native")
    drawn(tmp_path / "probes", "math")
    text = {name: text_tokens(processor.tokenizer, tmp_path / name) for name in ("train", "probes")}
    sheet = token_sheet(tmp_path / "similarity", text["train"], text["probes"])
    for domain in ("native", "math"):
        expected = one[one["domain"] == domain]["n_vision_tokens"].mean()
        assert sheet["by_domain"][domain]["vision_per_row"] == pytest.approx(expected)
    native = one[one["domain"] == "native"]
    for source in SOURCES:
        measured = native[native["source"] == source]["n_vision_tokens"]
        found = sheet["by_source"][source]
        assert found["text"] == text["train"].by_source[source]
        assert found["vision_per_row"] == (
            pytest.approx(measured.mean()) if len(measured) else None
        )
