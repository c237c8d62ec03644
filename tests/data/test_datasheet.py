"""The datasheet counts exactly the rows that were written."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from drawn_rows import Draw, stored, text_row

from interlace.data.datasheet import Datasheet, datasheet, read_datasheet
from interlace.errors import InputError
from interlace.report.figures import datasheet as figure
from interlace.samples.rows import write_rows
from interlace.system.outputs import write_json

PROBE = text_row(0, "a", images=1) | {"domain": "math", "task": "count", "sample_id": "0" * 16}


@pytest.fixture
def sheet(tmp_path: Path) -> Datasheet:
    rows = [text_row(i, "ab"[i % 2], turns=1 + i % 2, images=i % 4 == 0) for i in range(20)]
    rows += [rows[0], text_row(99, "b", images=9)]
    draw = Draw(tmp_path / "out")
    draw(stored(tmp_path / "x.parquet", rows))
    write_rows(iter([PROBE]), draw.folder / "probes")
    folders = (draw.folder / name for name in ("train", "calibration", "probes"))
    return datasheet(draw.counts, *folders)


def test_rows_images_turns_and_text_are_counted_by_source(sheet: Datasheet) -> None:
    texts = [f"ask a {i} 0{i}" for i in range(0, 20, 2)]  # question and answer side by side
    assert sheet.by_source["a"] == {
        **{"rows": 10, "text_only": 5, "images": 5, "turns": 10},
        **{"words": 10 * 5, "characters": sum(map(len, texts))},
    }
    b = {key: sheet.by_source["b"][key] for key in ("rows", "text_only", "images", "turns")}
    assert b == {"rows": 10, "text_only": 10, "images": 0, "turns": 20}


def test_rows_are_counted_by_domain_and_by_set(sheet: Datasheet) -> None:
    domains, sets = (
        {name: tally["rows"] for name, tally in tallies.items()}
        for tallies in (sheet.by_domain, sheet.by_set)
    )
    assert domains == {"math": 1, "native": 20}
    assert sets == {"train": 20, "calibration": 2, "probes": 1}


def test_the_terminal_shows_reasons_and_the_text_only_share(sheet: Datasheet) -> None:
    assert sheet.left_out == {"more than 3 images": 1, "repeated": 1}
    assert sheet.text_only_share == 0.75
    assert "20 rows of 2 sources (75% text-only), 2 to calibrate" in str(sheet)
    assert "sample: skipped 1 rows: repeated" in str(sheet)


def test_few_rows_to_calibrate_on_are_named(sheet: Datasheet) -> None:
    assert "sample: few rows to calibrate on: with fewer than 24" in str(sheet)
    assert "few rows" not in str(replace(sheet, calibration=24))


def test_a_datasheet_survives_its_file_and_names_no_path(sheet: Datasheet, tmp_path: Path) -> None:
    write_json(tmp_path / "datasheet.json", asdict(sheet))
    assert read_datasheet(tmp_path / "datasheet.json") == sheet
    assert str(tmp_path) not in json.dumps(asdict(sheet))


def test_a_source_without_a_count_is_named(sheet: Datasheet, tmp_path: Path) -> None:
    path = tmp_path / "datasheet.json"
    name = next(iter(sheet.by_source))
    counts = {key: count for key, count in sheet.by_source[name].items() if key != "rows"}
    write_json(path, asdict(sheet) | {"by_source": {name: counts}})
    with pytest.raises(InputError, match=f"^{path}: by_source: '{name}' has no 'rows'"):
        read_datasheet(path)


def test_the_figure_names_the_largest_sources_and_every_reason(
    sheet: Datasheet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: list[str] = []
    bars = figure._bars
    monkeypatch.setattr(figure, "_bars", lambda *args: labels.extend(args[2]) or bars(*args))
    sources = {f"source_{i} $x$": {"rows": 99 - i, "turns": 3} for i in range(60)}
    figure.datasheet_figure(replace(sheet, by_source=sources), tmp_path / "x.svg")
    assert {"source_0 $x$", "source_29 $x$", "30 others", "skipped: repeated"} <= set(labels)
