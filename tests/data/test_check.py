"""The data of a text-only model has no image, wherever it comes from and whatever its columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_rows import PICTURE
from sources_json import pinned_model

from interlace.data import check
from interlace.data.check import check_data
from interlace.errors import InputError
from interlace.params.whole import Params
from interlace.sources.pin import pin_data
from interlace.sources.pinned import PinnedData

LLAMA = pinned_model(model_type="llama", deepstack_layers=0)


def params(**data: Any) -> Params:
    return Params(model={"id": "model"}, data={"id": "rows"} | data, seed=0)


def test_rows_of_the_hub_need_images_to_be_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "check_subsets", lambda *_, **__: None)
    hub = PinnedData(id="org/name", revision="0" * 40)
    with pytest.raises(InputError, match=r"^data\.id = org/name: .*set data\.max_images to 0"):
        check_data(params(), LLAMA, hub, tmp_path / "answers", checked=tmp_path)
    check_data(params(max_images=0), LLAMA, hub, tmp_path / "answers", checked=tmp_path)


@pytest.mark.parametrize("kind", ["structure", "bytes"])
def test_an_image_in_a_benchmark_s_columns_is_seen(tmp_path: Path, kind: str) -> None:
    image = PICTURE if kind == "structure" else PICTURE["bytes"]
    scienceqa = {"question": "ask", "choices": ["a", "b"], "answer": 0, "hint": "", "lecture": ""}
    rows = [scienceqa | {"solution": "", "image": value} for value in (None, image)]
    schema = pa.Table.from_pylist(rows[1:]).schema
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "rows.parquet")
    data = pin_data(str(tmp_path), None, field="data.id", hashes=tmp_path / "hashes.json")
    with pytest.raises(InputError, match=r"rows\.parquet: row 1 has an image, and llama takes"):
        check_data(params(), LLAMA, data, tmp_path / "answers", checked=tmp_path)
    check_data(params(), pinned_model(), data, tmp_path / "answers", checked=tmp_path)


def test_a_file_that_passed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"images": [PICTURE], "texts": [{"user": "ask", "assistant": "a"}], "source": "s"}
    schema = pa.Table.from_pylist([row]).schema
    pq.write_table(pa.Table.from_pylist([row | {"images": []}], schema), tmp_path / "a.parquet")
    data = pin_data(str(tmp_path), None, field="data.id", hashes=tmp_path / "hashes.json")
    check_data(params(), LLAMA, data, tmp_path / "answers", checked=tmp_path / "passed")
    monkeypatch.setattr(check, "file_tables", None)
    check_data(params(), LLAMA, data, tmp_path / "answers", checked=tmp_path / "passed")
