"""Counts of the model's tokens in the data sets, by source and by domain."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from interlace.samples.parquet import row_count
from interlace.samples.rows import iterate_tables

Tally = Counter[str]
_SIDES = ("user", "assistant")


@dataclass(frozen=True)
class Tallies:
    """Counts of tokens or samples.

    Attributes:
        by_source: by source.
        by_domain: by domain.
    """

    by_source: Tally = field(default_factory=Counter)
    by_domain: Tally = field(default_factory=Counter)


def text_tokens(tokenizer: Any, folder: Path) -> Tallies:
    """Count the tokens of all questions and answers, without a template's own tokens.

    Args:
        tokenizer: the model's.
        folder: of rows that `sample` wrote.
    """
    tallies = Tallies()
    total = sum(row_count(path) for path in folder.glob("*.parquet"))
    with tqdm(total=total, unit="row", desc=f"tokens: {folder.name}") as progress:
        for table in iterate_tables(folder, ["source", "domain", "texts"]):
            rows = table.to_pylist()
            texts = [turn[side] for row in rows for turn in row["texts"] for side in _SIDES]
            encoded = tokenizer(texts, add_special_tokens=False, verbose=False) if texts else {}
            lengths = iter([len(ids) for ids in encoded.get("input_ids", ())])
            for row in rows:
                tokens = sum(islice(lengths, len(_SIDES) * len(row["texts"])))
                tallies.by_source[row["source"]] += tokens
                tallies.by_domain[row["domain"]] += tokens
            progress.update(len(rows))
    return tallies


def vision_tokens(similarity: Path) -> tuple[Tallies, Tallies]:
    """Count the measured samples and their image tokens.

    Args:
        similarity: folder that `collect` wrote.

    Returns:
        Samples and tokens; those by source are of the calibration set alone.
    """
    samples, tokens = Tallies(), Tallies()
    columns = ["source", "domain", "n_vision_tokens"]
    for path in sorted(similarity.glob("*.parquet")):
        first_rows = [("first", "=", 0), ("span", "=", 1)]  # one row of each sample
        for row in pq.read_table(path, columns=columns, filters=first_rows).to_pylist():
            for tallies, count in ((samples, 1), (tokens, row["n_vision_tokens"])):
                tallies.by_domain[row["domain"]] += count
                if row["domain"] == "native":
                    tallies.by_source[row["source"]] += count
    return samples, tokens


def token_sheet(similarity: Path, train: Tallies, probes: Tallies) -> dict[str, Any]:
    """Return both counts as JSON.

    Args:
        similarity: folder that `collect` wrote.
        train: `text_tokens` of the training set.
        probes: `text_tokens` of the probes.

    Returns:
        `by_source`, of the training set, and `by_domain`, of the training set (`native`) and the
        probes: `text` tokens, and `vision_per_row`, the mean number of image tokens over the
        measured rows, `None` where there are none.
    """
    samples, tokens = vision_tokens(similarity)

    def sheet(text: Tally, rows: Tally, images: Tally) -> dict[str, Any]:
        return {
            name: {
                "text": count,
                "vision_per_row": images[name] / rows[name] if rows[name] else None,
            }
            for name, count in sorted(text.items())
        }

    by_domain = train.by_domain + probes.by_domain
    return {
        "by_source": sheet(train.by_source, samples.by_source, tokens.by_source),
        "by_domain": sheet(by_domain, samples.by_domain, tokens.by_domain),
    }
