"""How many of the model's tokens the drawn sets hold, by set, by source and by domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from interlace.samples.rows import iterate_tables

Tally = Counter[str]
_SIDES = ("user", "assistant")


def text_tokens(tokenizer: Any, folder: Path) -> dict[str, Tally]:
    """Count the tokens of questions and answers, all turns, without a template's own tokens.

    Args:
        tokenizer: the model's.
        folder: of rows that `sample` wrote.

    Returns:
        Tokens `by_source` and `by_domain`.
    """
    found: dict[str, Tally] = {"by_source": Counter(), "by_domain": Counter()}
    total = sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))
    with tqdm(total=total, unit="row", desc=f"tokens: {folder.name}") as progress:
        for table in iterate_tables(folder, ["source", "domain", "texts"]):
            rows = table.to_pylist()
            said = [turn[side] for row in rows for turn in row["texts"] for side in _SIDES]
            encoded = tokenizer(said, add_special_tokens=False, verbose=False) if said else {}
            lengths = iter([len(ids) for ids in encoded.get("input_ids", ())])
            for row in rows:
                tokens = sum(islice(lengths, len(_SIDES) * len(row["texts"])))
                found["by_source"][row["source"]] += tokens
                found["by_domain"][row["domain"]] += tokens
            progress.update(len(rows))
    return found


def vision_tokens(similarity: Path) -> dict[str, dict[str, Tally]]:
    """The tokens that images became in the samples that `collect` measured.

    Args:
        similarity: folder that `collect` wrote.

    Returns:
        `samples` and `tokens`, each `by_source` (of the calibration set) and `by_domain`.
    """
    found = {name: {"by_source": Tally(), "by_domain": Tally()} for name in ("samples", "tokens")}
    columns = ["source", "domain", "n_vision_tokens"]
    for path in sorted(similarity.glob("*.parquet")):
        once = [("first", "=", 0), ("span", "=", 1)]  # one row of each sample
        for row in pq.read_table(path, columns=columns, filters=once).to_pylist():
            for name, count in (("samples", 1), ("tokens", row["n_vision_tokens"])):
                found[name]["by_domain"][row["domain"]] += count
                if row["domain"] == "native":
                    found[name]["by_source"][row["source"]] += count
    return found


def token_sheet(
    similarity: Path, train: Mapping[str, Tally], probes: Mapping[str, Tally]
) -> dict[str, Any]:
    """Both counts as JSON.

    Args:
        similarity: folder that `collect` wrote.
        train: what `text_tokens` counted in the training set.
        probes: the same of the probes.

    Returns:
        `by_source`, of the training set, and `by_domain`, of the training set (`native`) and the
        probes: `text` tokens, and `vision_per_row`, the mean number of image tokens over the rows
        that `collect` measured, none where it measured none.
    """
    seen = vision_tokens(similarity)
    counts = {
        "by_source": train["by_source"],
        "by_domain": train["by_domain"] + probes["by_domain"],
    }
    return {
        key: {
            name: {
                "text": tokens,
                "vision_per_row": seen["tokens"][key][name] / seen["samples"][key][name]
                if seen["samples"][key][name]
                else None,
            }
            for name, tokens in sorted(tally.items())
        }
        for key, tally in counts.items()
    }
