"""The calibration rows that the loss is measured on, and how they are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import answered_samples
import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from interlace.errors import InputError
from interlace.model import chat
from interlace.model.chat import IGNORED, collate, encode_training
from interlace.params.measuring import Sensitivity
from interlace.samples.answered_rows import answered_rows


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answered_samples.drawn(tmp_path_factory.mktemp("calibration"), models.rows(12))


def test_rows_of_lowest_id_are_measured(processor: Any, calibration: Path, tmp_path: Path) -> None:
    ids = sorted(pq.read_table(calibration, columns=["sample_id"])["sample_id"].to_pylist())
    rows = answered_rows(processor, calibration, tmp_path, Sensitivity(samples=5))
    assert sorted(path.stem for path in rows.paths) == ids[:5]


def test_probes_are_not_measured(processor: Any, calibration: Path, tmp_path: Path) -> None:
    table = pq.read_table(calibration)
    domains = ["native" if i % 2 else "math" for i in range(table.num_rows)]
    table = table.set_column(table.column_names.index("domain"), "domain", pa.array(domains))
    pq.write_table(table, tmp_path / "mixed.parquet")
    rows = answered_rows(processor, tmp_path, tmp_path / "rows", Sensitivity(samples=100))
    assert sorted(path.stem for path in rows.paths) == sorted(table["sample_id"].to_pylist()[1::2])


def lengths_of_prompts(processor: Any, calibration: Path) -> list[int]:
    rows = pq.read_table(calibration).to_pylist()
    labels = [encode_training(processor, row)["labels"].tolist() for row in rows]
    return [next(t for t, label in enumerate(row) if label != IGNORED) for row in labels]


def test_rows_whose_answer_is_cut_off_are_counted(
    processor: Any, calibration: Path, tmp_path: Path
) -> None:
    prompts = lengths_of_prompts(processor, calibration)
    given = Sensitivity(samples=100, max_length=max(prompts))
    rows = answered_rows(processor, calibration, tmp_path, given)
    assert rows.skipped == prompts.count(max(prompts))
    assert len(rows.paths) == len(prompts) - rows.skipped


def test_rows_without_any_answer_are_refused(processor: Any, tmp_path: Path) -> None:
    calibration = answered_samples.drawn(tmp_path, [models.row(0)])
    [length] = lengths_of_prompts(processor, calibration)
    with pytest.raises(InputError, match=rf"no answer .* measure.max_length = {length} "):
        answered_rows(processor, calibration, tmp_path / "rows", Sensitivity(max_length=length))


def test_rows_that_cannot_be_read_are_left_out_and_counted(processor: Any, tmp_path: Path) -> None:
    calibration = answered_samples.drawn(tmp_path, models.rows(6))
    [file] = calibration.glob("*.parquet")
    table = pq.read_table(file)
    rows = table.to_pylist()
    damaged = next(row for row in rows if row["images"])
    damaged["images"][0]["bytes"] = b"no picture"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    found = answered_rows(processor, calibration, tmp_path / "rows", Sensitivity(samples=100))
    assert found.skipped == 1
    assert {path.stem for path in found.paths} == {
        row["sample_id"] for row in rows if row is not damaged
    }


def test_where_no_prompt_is_short_enough_a_sample_and_its_source_are_named(
    processor: Any, calibration: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"sample [0-9a-f]{16} of made_up: .* max_length = 8"):
        answered_rows(processor, calibration, tmp_path, Sensitivity(max_length=8))


def test_an_empty_calibration_set_is_refused(processor: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows to calibrate on"):
        answered_rows(processor, tmp_path, tmp_path, Sensitivity())


def test_a_batch_holds_rows_within_the_budget(
    processor: Any, calibration: Path, tmp_path: Path
) -> None:
    params = Sensitivity(samples=100, batch_tokens=256)
    rows = answered_rows(processor, calibration, tmp_path, params)
    batches = [rows.batch(number, torch.device("cpu")) for number in range(len(rows.groups))]
    assert sum(len(batch["labels"]) for batch in batches) == 12
    assert len(batches) > 2
    assert all(batch["labels"].numel() <= 256 for batch in batches)


def test_a_batch_is_what_its_rows_encode_to(
    processor: Any, calibration: Path, tmp_path: Path
) -> None:
    by_id = {row["sample_id"]: row for row in pq.read_table(calibration).to_pylist()}
    rows = answered_rows(processor, calibration, tmp_path, Sensitivity(batch_tokens=256))
    names = [rows.paths[i].stem for i in rows.groups[1]]
    encoded = [encode_training(processor, by_id[name]) for name in names]
    expected = collate(encoded, pad_token_id=processor.tokenizer.pad_token_id)
    found = rows.batch(1, torch.device("cpu"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_rows_are_encoded_once(
    processor: Any, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answered_rows(processor, calibration, tmp_path, Sensitivity())
    monkeypatch.setattr(chat, "encode_training", None)
    assert answered_rows(processor, calibration, tmp_path, Sensitivity()) == before
