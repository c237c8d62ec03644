"""Datasheet of a draw: rows, images, turns and text by source, by domain and by set."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from interlace.data.sets import DrawCounts
from interlace.errors import MissingInputError
from interlace.samples.rows import iterate_tables
from interlace.system.documents import read_record

Tally = Counter[str]
_COLUMNS = ("source", "domain", "texts", "images.list.element.path")  # no image is read
_SIDES = ("user", "assistant")
FEW = 24  # rows with which 99% of draws drop the demo's layers (metrics/calibration_size.csv)


@dataclass(frozen=True)
class Datasheet:
    """Numbers of a draw, the contents of `data/datasheet.json`.

    A tally counts rows, text_only rows, images, turns, words and characters.

    Attributes:
        subsets: as in `DrawCounts`.
        left_out: as in `DrawCounts`, the most frequent reason first.
        odd: as in `DrawCounts`, the most frequent first.
        rows: as in `DrawCounts`.
        calibration: as in `DrawCounts`.
        bytes_read: as in `DrawCounts`.
        bytes_kept: as in `DrawCounts`.
        text_only_share: of the training rows, 0 to 1.
        by_set: tallies of the training set, the calibration set and the probes.
        by_domain: tallies of the training set and the probes.
        by_source: tallies of the training set.
    """

    subsets: dict[str, dict[str, int]]
    left_out: dict[str, int]
    odd: dict[str, int]
    rows: int
    calibration: int
    bytes_read: int
    bytes_kept: int
    text_only_share: float
    by_set: dict[str, dict[str, int]]
    by_domain: dict[str, dict[str, int]]
    by_source: dict[str, dict[str, int]]

    def __str__(self) -> str:
        """Say the most important numbers in a few lines for the terminal."""
        megabytes = f"{self.bytes_read / 1e6:.1f} MB read, {self.bytes_kept / 1e6:.1f} MB kept"
        lines = [
            f"{self.rows} rows of {len(self.by_source)} sources"
            f" ({100 * self.text_only_share:.0f}% text-only), {self.calibration} to calibrate;"
            f" {megabytes}"
        ]
        lines += [f"skipped {rows} rows: {reason}" for reason, rows in self.left_out.items()]
        lines += [f"kept {rows} odd rows: {reason}" for reason, rows in self.odd.items()]
        if self.calibration < FEW:
            lines.append(
                f"few rows to calibrate on: with fewer than {FEW}, another draw may choose other"
                " layers; raise data.calibration_fraction or data.fraction"
            )
        return "\n".join(f"sample: {line}" for line in lines)


def datasheet(counts: DrawCounts, train: Path, calibration: Path, probes: Path) -> Datasheet:
    """Describe the sets that `sample` wrote.

    No set depends on a model, so text is counted in characters and in words (between spaces).
    `collect` counts tokens, with the model's tokenizer.

    Args:
        counts: as `sample` returns them.
        train: folder of the training rows.
        calibration: folder of the calibration rows.
        probes: folder of the domain probes.
    """
    sets = {path.name: _tallies(path) for path in (train, calibration, probes)}
    by_source, by_domain = sets[train.name]
    total = sum(by_source.values(), Tally())
    all_domains = by_domain | sets[probes.name][1]
    return Datasheet(
        **vars(counts)
        | {"left_out": _by_frequency(counts.left_out), "odd": _by_frequency(counts.odd)},
        text_only_share=total["text_only"] / total["rows"],
        by_set={name: dict(sum(domains.values(), Tally())) for name, (_, domains) in sets.items()},
        by_domain={name: dict(tally) for name, tally in sorted(all_domains.items())},
        by_source={name: dict(tally) for name, tally in sorted(by_source.items())},
    )


def _by_frequency(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _tallies(folder: Path) -> tuple[dict[str, Tally], dict[str, Tally]]:
    """Tally the rows in a folder by source, and by domain."""
    by_source: dict[str, Tally] = {}
    by_domain: dict[str, Tally] = {}
    for table in iterate_tables(folder, _COLUMNS):
        images = pc.fill_null(pc.list_value_length(table["images"]), 0).to_pylist()
        columns = (table[name].to_pylist() for name in ("source", "domain", "texts"))
        for count, source, domain, texts in zip(images, *columns, strict=True):
            tally = _tally(count, texts)
            by_source.setdefault(source, Tally()).update(tally)
            by_domain.setdefault(domain, Tally()).update(tally)
    return by_source, by_domain


def _tally(images: int, turns: list[dict[str, str]]) -> dict[str, int]:
    texts = [turn[side] for turn in turns for side in _SIDES]
    return {
        "rows": 1,
        "text_only": int(images == 0),
        "images": images,
        "turns": len(turns),
        "words": sum(len(text.split()) for text in texts),
        "characters": sum(map(len, texts)),
    }


def read_datasheet(path: Path) -> Datasheet:
    """Read what the stage `sample` wrote.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    sheet: Datasheet = read_record(path, Datasheet)
    for name, tally in sheet.by_source.items():
        if missing := sorted(_tally(0, []).keys() - tally.keys()):
            raise MissingInputError(path, f"by_source: {name!r} has no {missing[0]!r}")
    return sheet
