"""What was drawn, in numbers: rows, images, turns and text by source and by domain."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from interlace.data.sets import DrawCounts
from interlace.samples.rows import iterate_tables

Tally = Counter[str]
_COLUMNS = ("source", "domain", "texts", "images.list.element.path")  # no image is read
_SIDES = ("user", "assistant")


def datasheet(drawn: DrawCounts, train: Path, calibration: Path, probes: Path) -> dict[str, Any]:
    """Describe the sets that `sample` wrote.

    Tokens are the model's and no set depends on the model, so text is counted in characters and in
    words (what stands between spaces). `collect` counts tokens, with the model's tokenizer.

    Args:
        drawn: what `sample` returned.
        train: folder of the training rows.
        calibration: folder of the calibration rows.
        probes: folder of the domain probes.

    Returns:
        JSON: the fields of `drawn`, the text-only share (0 to 1) of the training set, and rows,
        text_only rows, images, turns, words and characters `by_source` of the training set,
        `by_domain` of the training set and the probes, and `by_set`.
    """
    sets = {path.name: _tallies(path) for path in (train, calibration, probes)}
    by_source, by_domain = sets[train.name]
    total = sum(by_source.values(), Tally())
    all_domains = by_domain | sets[probes.name][1]
    return asdict(drawn) | {
        "left_out": _sorted(drawn.left_out),
        "odd": _sorted(drawn.odd),
        "text_only_share": total["text_only"] / total["rows"],
        "by_set": {name: dict(sum(found[1].values(), Tally())) for name, found in sets.items()},
        "by_domain": {name: dict(tally) for name, tally in sorted(all_domains.items())},
        "by_source": {name: dict(tally) for name, tally in sorted(by_source.items())},
    }


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _tallies(folder: Path) -> tuple[dict[str, Tally], dict[str, Tally]]:
    """Of the rows in a folder: tallies by source, and by domain."""
    by_source: dict[str, Tally] = {}
    by_domain: dict[str, Tally] = {}
    for table in iterate_tables(folder, _COLUMNS):
        images = pc.fill_null(pc.list_value_length(table["images"]), 0).to_pylist()
        others = (table[name].to_pylist() for name in ("source", "domain", "texts"))
        for count, source, domain, texts in zip(images, *others, strict=True):
            tally = _tally(count, texts)
            by_source.setdefault(source, Tally()).update(tally)
            by_domain.setdefault(domain, Tally()).update(tally)
    return by_source, by_domain


def _tally(images: int, texts: list[dict[str, str]]) -> dict[str, int]:
    said = [text[side] for text in texts for side in _SIDES]
    return {
        "rows": 1,
        "text_only": int(images == 0),
        "images": images,
        "turns": len(texts),
        "words": sum(len(part.split()) for part in said),
        "characters": sum(map(len, said)),
    }


def datasheet_text(sheet: dict[str, Any]) -> str:
    """The datasheet in a few lines for the terminal."""
    megabytes = f"{sheet['bytes_read'] / 1e6:.1f} MB read, {sheet['bytes_kept'] / 1e6:.1f} MB kept"
    lines = [
        f"{sheet['rows']} rows of {len(sheet['by_source'])} sources"
        f" ({100 * sheet['text_only_share']:.0f}% text-only), {sheet['calibration']} to calibrate;"
        f" {megabytes}"
    ]
    lines += [f"left out {rows} rows: {reason}" for reason, rows in sheet["left_out"].items()]
    lines += [f"kept {rows} odd rows: {reason}" for reason, rows in sheet["odd"].items()]
    return "\n".join(f"sample: {line}" for line in lines)
