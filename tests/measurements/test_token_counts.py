"""Tokens are the tokenizer's, by source and by domain."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import models
import pytest
from similarity_rows import rows, stored

from interlace.errors import InputError
from interlace.measurements.token_counts import Tallies, text_tokens, token_sheet, vision_tokens
from interlace.samples.rows import write_rows

SOURCES = ("source_0", "source_1", "not_measured")


@pytest.fixture(scope="module")
def samples() -> list[dict[str, Any]]:
    """Rows of three sources and two domains, with two turns each."""
    return [
        models.row(i, images=i % 2, turns=2, source=SOURCES[i % 3])
        | {"domain": ("math", "nonmath")[i % 5 == 0], "task": "t", "sample_id": f"{i:016x}"}
        for i in range(70)
    ]


def test_the_tokens_of_all_turns_are_counted(
    processor: Any, samples: list[dict[str, Any]], tmp_path: Path
) -> None:
    by_source: Counter[str] = Counter()
    by_domain: Counter[str] = Counter()
    for row in samples:
        for text in (turn[side] for turn in row["texts"] for side in ("user", "assistant")):
            tokens = len(processor.tokenizer.encode(text, add_special_tokens=False))
            by_source[row["source"]] += tokens
            by_domain[row["domain"]] += tokens
    write_rows(iter(samples), tmp_path / "rows")
    expected = Tallies(by_source, by_domain)
    assert text_tokens(processor.tokenizer, tmp_path / "rows") == expected
    write_rows(iter([]), tmp_path / "rows")
    assert text_tokens(processor.tokenizer, tmp_path / "rows") == Tallies()


def test_image_tokens_are_the_mean_over_measured_rows(tmp_path: Path) -> None:
    frame = rows(samples=9, layers=4, longest=3, domains=("native", "math"))
    stored(tmp_path / "similarity", frame, parts=2)
    train = Tallies(Counter(dict.fromkeys(SOURCES, 5)), Counter(native=15))
    sheet = token_sheet(tmp_path / "similarity", train, Tallies(Counter(), Counter(math=3)))
    one_each = frame[(frame["first"] == 0) & (frame["span"] == 1)]
    samples, _ = vision_tokens(tmp_path / "similarity")
    assert samples.by_domain == one_each["domain"].value_counts().to_dict()
    for domain, text in (("native", 15), ("math", 3)):
        mean = one_each[one_each["domain"] == domain]["n_vision_tokens"].mean()
        assert sheet["by_domain"][domain] == {"text": text, "vision_per_row": pytest.approx(mean)}
    native = one_each[one_each["domain"] == "native"]
    assert samples.by_source == native["source"].value_counts().to_dict()
    means = native.groupby("source")["n_vision_tokens"].mean().to_dict()
    assert {name: entry["vision_per_row"] for name, entry in sheet["by_source"].items()} == {
        "not_measured": None,
        **{name: pytest.approx(mean) for name, mean in means.items()},
    }


def test_a_damaged_file_of_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"part-00000.parquet: not a readable Parquet file"):
        text_tokens(None, tmp_path)
