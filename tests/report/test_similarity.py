from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from report.report_cases import full_scores, score_table

from interlace.errors import InputError
from interlace.report.figures.similarity import MOST, positions, similarity_figure
from interlace.report.figures.style import LINE_COLOURS
from interlace.scores.table import NATIVE


def table(n_layers: int, spans: tuple[int, ...] = (1, 2, 3, 4), **changes: str) -> pa.Table:
    scores = full_scores(n_layers)
    values = {
        key: value for key, value in scores.values.items() if key[0] == NATIVE and key[2] in spans
    }
    return score_table(replace(scores, values=values), **changes)


def drawn(path: Path, *tables: pa.Table) -> bytes:
    similarity_figure({f"model {n}": each for n, each in enumerate(tables)}, path)
    return path.read_bytes()


def test_other_spans_and_criteria_change_nothing(tmp_path: Path) -> None:
    more = pa.concat_tables([table(24), table(24, criterion="angular")])
    alone = table(24, spans=(1, 3))
    assert drawn(tmp_path / "a.png", more) == drawn(tmp_path / "b.png", alone)


def test_each_model_has_a_line_of_its_own_colour(tmp_path: Path) -> None:
    one = drawn(tmp_path / "one.svg", table(24)).lower()
    two = drawn(tmp_path / "two.svg", table(24), table(24)).lower()
    first, second = (colour.lower().encode() for colour in LINE_COLOURS[:2])
    assert first in one and second not in one
    assert first in two and second in two


def test_layers_are_counted_and_depths_are_shares() -> None:
    assert positions([0, 5], 3, None).tolist() == [0, 5]
    assert positions([0, 9], 1, 10).tolist() == [0.05, 0.95]
    assert positions([0, 7], 3, 10).tolist() == [0.15, 0.85]


def test_a_table_without_triplets_shows_its_layers(tmp_path: Path) -> None:
    assert drawn(tmp_path / "a.png", table(24, spans=(1,)))


def test_a_table_without_layers_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model 1: scores hold no 'cosine'"):
        drawn(tmp_path / "a.png", table(24), table(24, spans=(3,)))
    assert not (tmp_path / "a.png").exists()


def test_no_more_models_are_drawn_than_can_be_told_apart(tmp_path: Path) -> None:
    for wrong in (0, MOST + 1):
        with pytest.raises(InputError, match=f"{wrong} score tables"):
            drawn(tmp_path / "a.png", *[table(6)] * wrong)
