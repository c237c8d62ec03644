"""Prompts to time: rows of the data, or the typical request of a benchmark.

The published speedups (arXiv 2511.19676, table 4) are per benchmark, and benchmarks differ in how
many image and text tokens a request has. The paper gives no sizes; `SHAPES` holds a typical image
of each benchmark's data, rounded, and the tokens of its question with choices and instruction.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from interlace.errors import InputError
from interlace.model.chat import Inputs, Row, collate, encode_prompt
from interlace.params.timing import Ttft
from interlace.samples.rows import iterate


@dataclass(frozen=True)
class Shape:
    """Size of a typical request.

    Attributes:
        width: of its one image, pixels.
        height: of its one image, pixels.
        text_tokens: of the user's text, without the chat template.
    """

    width: int
    height: int
    text_tokens: int


@dataclass(frozen=True)
class TimedRequest:
    """One prompt to time.

    Attributes:
        benchmark: that it stands for, or the source of the row it comes from.
        encoded: as `chat.encode_prompt` returns it.
    """

    benchmark: str
    encoded: Inputs

    @property
    def tokens(self) -> int:
        """Length of the prompt."""
        return len(self.encoded["input_ids"])

    def batch(self, size: int) -> Inputs:
        """Repeat the prompt `size` times, [size, T] per token: a batch without padding."""
        inputs = collate([self.encoded] * size, pad_token_id=0)
        inputs.pop("labels", None)
        return inputs


SHAPES = {
    "AI2D": Shape(600, 450, 60),
    "ChartQA": Shape(800, 600, 35),
    "OCRBench": Shape(700, 500, 25),
    "TextVQA": Shape(1024, 768, 30),
    "MMBench": Shape(512, 384, 90),
    "POPE": Shape(640, 480, 25),
    "RealWorldQA": Shape(1536, 1024, 60),
    "HRBench4K": Shape(4032, 3024, 75),
    "HRBench8K": Shape(7680, 4320, 75),
    "VStar": Shape(2250, 1500, 60),
    "MIABench": Shape(1024, 768, 70),
    "ScienceQA": Shape(400, 300, 90),
}


def timed_rows(calibration: Path, requests: int, *, with_images: bool) -> list[dict[str, Any]]:
    """Return rows enough to draw requests from.

    Args:
        calibration: folder that `sample` wrote.
        requests: to be drawn.
        with_images: leave out rows without an image; False for a model that takes text alone.
    """
    rows = (row for row in iterate(calibration) if row["images"] or not with_images)
    return list(islice(rows, 16 * requests))


def synthetic_row(processor: Any, shape: Shape) -> dict[str, Any]:
    """Make a FineVision row of a shape: a grey image, and text of so many tokens."""
    file = io.BytesIO()
    Image.new("RGB", (shape.width, shape.height), "grey").save(file, "PNG")
    ids = processor.tokenizer(" which" * (2 * shape.text_tokens), add_special_tokens=False)
    text = processor.tokenizer.decode(ids["input_ids"][: shape.text_tokens])
    return {
        "images": [{"bytes": file.getvalue(), "path": None}],
        "texts": [{"user": text, "assistant": ""}],
        "source": "made_up",
    }


def typical_requests(processor: Any, benchmarks: Sequence[str]) -> list[TimedRequest]:
    """Make one request in the shape of each benchmark.

    Raises:
        InputError: a benchmark without a shape.
    """
    if unknown := [name for name in benchmarks if name not in SHAPES]:
        raise InputError(f"ttft.shapes: {unknown[0]!r} is not one of {', '.join(SHAPES)}")
    return [request_of(processor, name, SHAPES[name]) for name in benchmarks]


def request_of(processor: Any, name: str, shape: Shape) -> TimedRequest:
    """Make a request of a shape, under a name."""
    return TimedRequest(name, encode_prompt(processor, synthetic_row(processor, shape)))


def rows_to_time(processor: Any, rows: Sequence[Row], params: Ttft, seed: int) -> list[Row]:
    """Return a row per request: in the shapes of benchmarks, or drawn evenly from their sources.

    Raises:
        InputError: there are no rows.
    """
    if params.shapes:
        return [synthetic_row(processor, SHAPES[name]) for name in params.shapes]
    return drawn_rows(rows, params.requests, seed)


def drawn_requests(
    processor: Any, rows: Sequence[Row], count: int, seed: int
) -> list[TimedRequest]:
    """Encode rows that are drawn evenly from their sources; see `drawn_rows`."""
    return [
        TimedRequest(str(row.get("source", "")), encode_prompt(processor, row))
        for row in drawn_rows(rows, count, seed)
    ]


def drawn_rows(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Draw rows evenly from their sources.

    Args:
        rows: FineVision rows.
        count: rows to draw; all if there are fewer.
        seed: of the draw.

    Raises:
        InputError: there are no rows.
    """
    if not rows:
        raise InputError("no rows to time: the calibration set is empty")
    rows_of_source: Counter[str] = Counter()
    turns: list[tuple[int, int]] = []  # (how many rows of its source came before, row)
    for index in np.random.default_rng(seed).permutation(len(rows)).tolist():
        source = str(rows[index].get("source", ""))
        turns.append((rows_of_source[source], index))
        rows_of_source[source] += 1
    first_turns = sorted(turns, key=lambda turn: turn[0])[:count]
    return [rows[index] for index in sorted(index for _, index in first_turns)]
