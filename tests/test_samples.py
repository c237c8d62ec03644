"""Rows are drawn by seed and place, filtered as published, and checked where they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlace.errors import InputError
from interlace.params import Data
from interlace.samples import (
    SCHEMA,
    Datasheet,
    check_row,
    check_schema,
    check_source,
    iterate,
    sample,
    sample_id,
)

Row = dict[str, Any]
Files = list[tuple[str, Any]]
INPUT_SCHEMA = pa.schema([SCHEMA.field(name) for name in ("images", "texts", "source")])
PICTURE = models.picture(0, side=8)


def text_row(number: int, source: str = "made_up", turns: int = 1, images: int = 0) -> Row:
    texts = [{"user": f"ask {number} {t}", "assistant": f"{number}"} for t in range(turns)]
    return {
        "images": [{"bytes": PICTURE, "path": None}] * images,
        "texts": texts,
        "source": source,
    }


def stored(path: Path, rows: list[Row], schema: pa.Schema = INPUT_SCHEMA) -> tuple[str, Path]:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=16)
    return str(path), path


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., tuple[list[Row], list[Row], Datasheet]]:
    """Runs `sample`; returns the training rows, the calibration rows and the datasheet."""

    def run(files: Files, seed: int = 0, **data: Any) -> tuple[list[Row], list[Row], Datasheet]:
        train, calibration = tmp_path / "out/train", tmp_path / "out/calibration"
        sheet = sample(files, train, calibration, data=Data(id="x", **data), seed=seed)
        return list(iterate(train)), list(iterate(calibration)), sheet

    return run


Draw = Callable[..., tuple[list[Row], list[Row], Datasheet]]


def ids(rows: list[Row]) -> list[str]:
    return [row["sample_id"] for row in rows]


def three_sources(folder: Path) -> Files:
    rows = [
        text_row(i, source) for source, n in (("a", 200), ("b", 50), ("c", 7)) for i in range(n)
    ]
    for row in rows:
        row["texts"][0]["user"] += row["source"]
    return [stored(folder / "rows.parquet", rows)]


def test_every_source_gives_its_exact_share(tmp_path: Path, draw: Draw) -> None:
    train, _, _ = draw(three_sources(tmp_path), fraction=0.1)
    assert Counter(row["source"] for row in train) == {"a": 20, "b": 5, "c": 1}


def test_a_share_is_not_raised_by_binary_fractions(tmp_path: Path, draw: Draw) -> None:
    files = [stored(tmp_path / "x.parquet", [text_row(i) for i in range(100)])]
    assert len(draw(files, fraction=0.07)[0]) == 7  # 0.07 * 100 > 7 in floats


def test_all_rows_are_drawn_in_their_order_by_default(tmp_path: Path, draw: Draw) -> None:
    rows = [text_row(i) for i in range(40)]
    train, _, sheet = draw([stored(tmp_path / "x.parquet", rows)])
    assert [row["texts"] for row in train] == [row["texts"] for row in rows]
    assert sheet.rows == 40


def test_a_larger_fraction_holds_every_smaller_one(tmp_path: Path, draw: Draw) -> None:
    files = three_sources(tmp_path)
    drawn = [set(ids(draw(files, fraction=fraction)[0])) for fraction in (0.1, 0.3, 0.7, 1.0)]
    assert drawn[0] < drawn[1] < drawn[2] < drawn[3]


def test_another_seed_draws_other_rows(tmp_path: Path, draw: Draw) -> None:
    files = three_sources(tmp_path)
    assert ids(draw(files, fraction=0.1, seed=0)[0]) != ids(draw(files, fraction=0.1, seed=1)[0])


def test_the_draw_is_not_the_first_rows(tmp_path: Path, draw: Draw) -> None:
    files = [stored(tmp_path / "x.parquet", [text_row(i) for i in range(400)])]
    numbers = [int(row["texts"][0]["assistant"]) for row in draw(files, fraction=0.1)[0]]
    assert max(numbers) > 200
    assert 100 < sum(numbers) / len(numbers) < 300


def test_files_of_one_source_are_drawn_from_independently(tmp_path: Path, draw: Draw) -> None:
    files = [
        stored(tmp_path / f"{name}.parquet", [text_row(i + 1000 * k) for i in range(100)])
        for k, name in enumerate("ab")
    ]
    numbers = [int(row["texts"][0]["assistant"]) for row in draw(files, fraction=0.1)[0]]
    places = [{n for n in numbers if n < 1000}, {n - 1000 for n in numbers if n >= 1000}]
    assert len(places[0] & places[1]) < 5  # of about ten each


def test_the_same_draw_is_the_same_bytes(tmp_path: Path) -> None:
    files = [stored(tmp_path / "x.parquet", models.rows(30))]
    written = []
    for run in ("one", "two"):
        folders = tmp_path / run / "train", tmp_path / run / "calibration"
        sample(files, *folders, data=Data(id="x", fraction=0.5), seed=3)
        written.append([p.read_bytes() for f in folders for p in sorted(f.glob("*"))])
    assert written[0] == written[1]


def test_where_the_files_lie_does_not_matter(tmp_path: Path, draw: Draw) -> None:
    rows = [text_row(i) for i in range(100)]
    (tmp_path / "elsewhere").mkdir()
    here, there = (stored(tmp_path / f / "x.parquet", rows) for f in (".", "elsewhere"))
    assert ids(draw([here], fraction=0.2)[0]) == ids(draw([there], fraction=0.2)[0])


def test_rows_of_other_sources_do_not_change_a_source_s_draw(tmp_path: Path, draw: Draw) -> None:
    alone = [text_row(i, "a") for i in range(100)]
    others = [text_row(1000 + i, "b") for i in range(30)]
    one = draw([stored(tmp_path / "x.parquet", alone)], fraction=0.2)[0]
    mixed = draw([stored(tmp_path / "y.parquet", others + alone)], fraction=0.2)[0]
    assert ids(one) == [row["sample_id"] for row in mixed if row["source"] == "a"]


def test_rows_with_too_many_images_are_left_out_and_counted(tmp_path: Path, draw: Draw) -> None:
    rows = [text_row(i, images=i) for i in range(6)]
    train, _, sheet = draw([stored(tmp_path / "x.parquet", rows)], max_images=3)
    assert [len(row["images"]) for row in train] == [0, 1, 2, 3]
    assert sheet.left_out == {"more than 3 images": 2}


def test_conversations_are_cut_behind_the_last_allowed_turn(tmp_path: Path, draw: Draw) -> None:
    train, _, _ = draw([stored(tmp_path / "x.parquet", [text_row(0, turns=5)])], max_turns=3)
    assert [text["user"] for text in train[0]["texts"]] == ["ask 0 0", "ask 0 1", "ask 0 2"]


def test_repeated_rows_are_left_out_and_counted(tmp_path: Path, draw: Draw) -> None:
    rows = [text_row(0, "a"), text_row(1, "a"), text_row(0, "b")]
    train, _, sheet = draw([stored(tmp_path / "x.parquet", rows)])
    assert [row["source"] for row in train] == ["a", "a"]
    assert sheet.left_out == {"repeated": 1}


def test_the_datasheet_counts_what_was_drawn(tmp_path: Path, draw: Draw) -> None:
    rows = [text_row(i, "ab"[i % 2], images=i % 4 == 0) for i in range(20)]
    _, _, sheet = draw([stored(tmp_path / "x.parquet", rows)])
    assert (sheet.rows, sheet.text_only, sheet.calibration) == (20, 15, 2)
    assert sheet.by_source == {"a": 10, "b": 10}


def test_written_rows_have_the_contract_s_columns(tmp_path: Path, draw: Draw) -> None:
    train, calibration, _ = draw([stored(tmp_path / "x.parquet", [text_row(0)])])
    assert set(train[0]) == set(calibration[0]) == set(SCHEMA.names)
    assert {"sample_id", "domain", "task", "images", "texts", "source"} <= set(SCHEMA.names)
    assert (train[0]["domain"], train[0]["task"]) == ("native", "native")


def test_ratings_are_carried_on(tmp_path: Path, draw: Draw) -> None:
    row = text_row(0) | {"relevance_ratings": [4], "relevance_min": 4}
    schema = pa.schema([SCHEMA.field(name) for name in row])
    train, _, _ = draw([stored(tmp_path / "x.parquet", [row], schema)])
    assert (train[0]["relevance_ratings"], train[0]["relevance_min"]) == ([4], 4)
    assert train[0]["formatting_min"] is None


@pytest.mark.parametrize(
    ("n", "fraction", "wanted"), [(50, 0.1, 5), (59, 0.1, 5), (100, 0.29, 29), (3, 0.1, 1)]
)
def test_calibration_is_an_exact_share_of_the_training_rows(
    tmp_path: Path, draw: Draw, n: int, fraction: float, wanted: int
) -> None:
    files = [stored(tmp_path / "x.parquet", [text_row(i) for i in range(n)])]
    train, calibration, _ = draw(files, calibration_fraction=fraction)
    assert len(calibration) == wanted
    assert all(row in train for row in calibration)


def test_calibration_depends_on_the_seed(tmp_path: Path, draw: Draw) -> None:
    files = [stored(tmp_path / "x.parquet", [text_row(i) for i in range(200)])]
    assert ids(draw(files, seed=0)[1]) != ids(draw(files, seed=1)[1])


def test_calibration_depends_on_content_not_on_order(tmp_path: Path, draw: Draw) -> None:
    rows = [text_row(i) for i in range(200)]
    forward = draw([stored(tmp_path / "x.parquet", rows)])[1]
    backward = draw([stored(tmp_path / "y.parquet", rows[::-1])])[1]
    assert sorted(ids(forward)) == sorted(ids(backward))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=3))
def test_an_id_depends_on_the_texts_and_where_they_are_cut(turns: list[tuple[str, str]]) -> None:
    row = {"images": [], "texts": [{"user": u, "assistant": a} for u, a in turns]}
    shifted = {"images": [], "texts": [dict(text) for text in row["texts"]]}
    shifted["texts"][0]["assistant"] = row["texts"][0]["user"][-1] + row["texts"][0]["assistant"]
    shifted["texts"][0]["user"] = row["texts"][0]["user"][:-1]
    assert sample_id(row) == sample_id(row | {"source": "elsewhere"})
    assert sample_id(row) != sample_id(shifted)


def test_an_id_depends_on_the_images_and_their_order() -> None:
    pictures = [{"bytes": models.picture(i, side=8), "path": None} for i in range(2)]
    texts = text_row(0)["texts"]
    found = {
        sample_id({"images": images, "texts": texts})
        for images in ([], pictures[:1], pictures, pictures[::-1])
    }
    assert len(found) == 4


def test_an_image_s_path_is_no_content() -> None:
    row = text_row(0, images=1)
    elsewhere = row | {"images": [{"bytes": PICTURE, "path": "other.png"}]}
    assert sample_id(row) == sample_id(elsewhere)


def test_ids_stay_what_they_were() -> None:
    row = {
        "images": [{"bytes": b"an image", "path": None}],
        "texts": [{"user": "How many?", "assistant": "Drei \u2713"}],
    }
    assert sample_id(row) == "64b778d8d70a9a49"


@pytest.mark.parametrize("column", ["images", "texts", "source"])
def test_a_missing_column_is_named_with_its_file(tmp_path: Path, column: str) -> None:
    table = pa.Table.from_pylist([text_row(0)], schema=INPUT_SCHEMA).drop_columns([column])
    path = tmp_path / "x.parquet"
    pq.write_table(table, path)
    with pytest.raises(InputError, match=rf"x\.parquet: column '{column}' is missing"):
        check_source([(str(path), path)])


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("images", pa.list_(pa.string())),
        ("texts", pa.string()),
        ("texts", pa.list_(pa.struct([("question", pa.string()), ("answer", pa.string())]))),
        ("source", pa.int64()),
    ],
)
def test_a_column_of_another_type_is_named_with_its_file(column: str, kind: pa.DataType) -> None:
    schema = INPUT_SCHEMA.set(INPUT_SCHEMA.get_field_index(column), pa.field(column, kind))
    with pytest.raises(InputError, match=rf"^x\.parquet: column '{column}' is .*, not "):
        check_schema(schema, "x.parquet")


def test_large_strings_and_lists_are_as_good() -> None:
    turn = pa.struct([("user", pa.large_string()), ("assistant", pa.large_string())])
    schema = pa.schema(
        [
            INPUT_SCHEMA.field("images"),
            ("texts", pa.large_list(turn)),
            ("source", pa.large_string()),
        ]
    )
    check_schema(schema, "x.parquet")


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_text("not parquet")
    with pytest.raises(InputError, match=r"x\.parquet: not a readable Parquet file"):
        check_source([(str(path), path)])


BROKEN = {
    "no turns": ({"texts": []}, "'texts': no turns"),
    "null turns": ({"texts": None}, "'texts': no turns"),
    "empty question": ({"texts": [{"user": " ", "assistant": "a"}]}, "'texts': turn 0 .* user"),
    "null answer": ({"texts": [{"user": "a", "assistant": None}]}, "'texts': turn 0 .* assistant"),
    "null turn": ({"texts": [None]}, "'texts': turn 0"),
    "empty source": ({"source": ""}, "'source': empty"),
    "null source": ({"source": None}, "'source': empty"),
    "no image": ({"images": [{"bytes": b"GIF?", "path": None}]}, "'images': image 0"),
    "null image": ({"images": [{"bytes": None, "path": "a.png"}]}, "'images': image 0"),
    "cut image": ({"images": [{"bytes": PICTURE[:60], "path": None}]}, "'images': image 0"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_row_is_named_with_its_file_row_and_column(
    tmp_path: Path, draw: Draw, case: str
) -> None:
    change, complaint = BROKEN[case]
    rows = [*(text_row(i) for i in range(20)), text_row(20) | change]
    with pytest.raises(InputError, match=rf"x\.parquet: row 20, column {complaint}") as caught:
        draw([stored(tmp_path / "x.parquet", rows)])
    assert "\n" not in str(caught.value)


def test_a_broken_row_leaves_no_output(tmp_path: Path, draw: Draw) -> None:
    rows = [text_row(0), text_row(1) | {"texts": []}]
    with pytest.raises(InputError):
        draw([stored(tmp_path / "x.parquet", rows)])
    assert list((tmp_path / "out").iterdir()) == []


def test_a_row_without_images_may_hold_null(tmp_path: Path, draw: Draw) -> None:
    train, _, sheet = draw([stored(tmp_path / "x.parquet", [text_row(0) | {"images": None}])])
    assert (len(train), sheet.text_only) == (1, 1)


def test_a_sound_row_passes() -> None:
    check_row(text_row(0, images=2, turns=2), "here")


def test_an_empty_source_is_refused(tmp_path: Path, draw: Draw) -> None:
    with pytest.raises(InputError, match="no rows were drawn"):
        draw([stored(tmp_path / "x.parquet", [])])
