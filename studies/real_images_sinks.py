"""Where the attention sink is when an image comes first: the token of greatest norm, by layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pyarrow.parquet as pq

from interlace.model.chat import encode_prompt
from interlace.samples.rows import iterate

FIRST, IMAGE, TEXT = "first token", "image", "other text"
MASSIVE = 10.0  # norm of a massive token over the median of its prompt, at least


@dataclass(frozen=True)
class SinkRow:
    """Prompts with or without images at one layer.

    Attributes:
        layer: its number.
        with_image: True for prompts that begin with an image, False for text alone.
        prompts: how many.
        first: percent of the prompts whose token of greatest norm is the first one.
        image: percent where it is an image's.
        other: percent where it is another one.
        ratio: median over prompts of its norm over the median norm of the prompt's tokens, after
            the layer.
        massive: percent of prompts where that is `MASSIVE` or more.
    """

    layer: int
    with_image: bool
    prompts: int
    first: float
    image: float
    other: float
    ratio: float
    massive: float


def sink_rows(hidden_states: Path, calibration: Path, processor: Any) -> Iterator[SinkRow]:
    """Tell where each calibration prompt's token of greatest norm is.

    Args:
        hidden_states: folder that `collect` wrote.
        calibration: its rows.
        processor: of the model.
    """
    kinds = {row["sample_id"]: token_kinds(processor, row) for row in iterate(calibration)}
    found: dict[tuple[bool, int], list[tuple[str, float]]] = defaultdict(list)
    for record in pq.read_table(hidden_states / "sinks").to_pylist():
        if record["sample_id"] in kinds and record["domain"] == "native":
            of_prompt = kinds[record["sample_id"]]
            kind = of_prompt[record["largest_position"]]
            norm = record["largest_out"] / record["median_out"]
            found[IMAGE in of_prompt, record["layer"]].append((kind, norm))
    for (with_image, layer), tokens in sorted(found.items(), key=lambda item: item[0]):
        shares = (100 * fmean(kind == one for kind, _ in tokens) for one in (FIRST, IMAGE, TEXT))
        norms = [norm for _, norm in tokens]
        massive = 100 * fmean(norm >= MASSIVE for norm in norms)
        yield SinkRow(layer, with_image, len(tokens), *shares, median(norms), massive)


def token_kinds(processor: Any, row: dict[str, Any]) -> list[str]:
    """Return what each token of a row's prompt is."""
    ids = encode_prompt(processor, row)["input_ids"].tolist()
    kinds = [IMAGE if token == processor.image_token_id else TEXT for token in ids]
    return [FIRST, *kinds[1:]]
