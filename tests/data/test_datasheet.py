"""The datasheet counts exactly what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from drawn_rows import Draw, stored, text_row

from interlace.data.datasheet import datasheet, datasheet_text
from interlace.report.figures.datasheet import datasheet_figure
from interlace.samples.rows import write_rows

PROBE = text_row(0, "a", images=1) | {"domain": "math", "task": "count", "sample_id": "0" * 16}


@pytest.fixture
def sheet(tmp_path: Path) -> dict[str, Any]:
    rows = [text_row(i, "ab"[i % 2], turns=1 + i % 2, images=i % 4 == 0) for i in range(20)]
    rows += [rows[0], text_row(99, "b", images=9)]
    draw = Draw(tmp_path / "out")
    draw(stored(tmp_path / "x.parquet", rows))
    write_rows(iter([PROBE]), draw.folder / "probes")
    folders = (draw.folder / name for name in ("train", "calibration", "probes"))
    return datasheet(draw.drawn, *folders)


def test_rows_images_and_turns_are_counted_by_source(sheet: dict[str, Any]) -> None:
    found = {
        name: {k: tally.get(k, 0) for k in ("rows", "text_only", "images", "turns")}
        for name, tally in sheet["by_source"].items()
    }
    assert found == {
        "a": {"rows": 10, "text_only": 5, "images": 5, "turns": 10},
        "b": {"rows": 10, "text_only": 10, "images": 0, "turns": 20},
    }


def test_text_is_counted_in_words_and_characters(sheet: dict[str, Any]) -> None:
    said = [f"ask a {i} 0{i}" for i in range(0, 20, 2)]  # question and answer side by side
    assert sheet["by_source"]["a"]["characters"] == sum(map(len, said))
    assert sheet["by_source"]["a"]["words"] == 10 * 5


def test_the_training_set_and_the_probes_are_counted_by_domain(sheet: dict[str, Any]) -> None:
    assert {name: tally["rows"] for name, tally in sheet["by_domain"].items()} == {
        "math": 1,
        "native": 20,
    }


def test_every_set_is_counted(sheet: dict[str, Any]) -> None:
    assert {name: tally["rows"] for name, tally in sheet["by_set"].items()} == {
        "train": 20,
        "calibration": 2,
        "probes": 1,
    }


def test_what_was_left_out_is_said_with_the_reason(sheet: dict[str, Any]) -> None:
    assert sheet["left_out"] == {"more than 3 images": 1, "repeated": 1}
    assert "sample: left out 1 rows: repeated" in datasheet_text(sheet)


def test_the_text_only_share_is_said(sheet: dict[str, Any]) -> None:
    assert sheet["text_only_share"] == 0.75
    assert "20 rows of 2 sources (75% text-only), 2 to calibrate" in datasheet_text(sheet)


def test_a_datasheet_is_json_that_names_no_place(sheet: dict[str, Any], tmp_path: Path) -> None:
    assert str(tmp_path) not in json.dumps(sheet)


def test_the_figure_is_the_same_bytes_each_time(sheet: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one", "two"):
        datasheet_figure(sheet, tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_the_figure_names_every_source_and_reason(sheet: dict[str, Any], tmp_path: Path) -> None:
    more = {f"source_{i} $x$": {"rows": 99 - i, "turns": 3} for i in range(60)}
    shown: list[str] = []
    import interlace.report.figures.datasheet as module

    bars = module._bars
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_bars", lambda *a: shown.extend(a[2]) or bars(*a))
        datasheet_figure(sheet | {"by_source": more}, tmp_path / "x.svg")
    assert "source_0 $x$" in shown
    assert "source_29 $x$" in shown
    assert "30 others" in shown
    assert "left out: repeated" in shown
