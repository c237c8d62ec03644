"""The calibration rows that the loss is measured on, and how they are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import answered_samples
import models
import pyarrow.parquet as pq
import pytest
import torch

from interlace.errors import InputError
from interlace.model import chat
from interlace.model.chat import IGNORED, collate, encode_training
from interlace.params.measuring import Sensitivity
from interlace.samples.answered_rows import answered_rows
from interlace.samples.rows import sample_id


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answered_samples.calibration(tmp_path_factory.mktemp("calibration") / "rows")


def test_rows_of_lowest_id_are_measured(processor: Any, calibration: Path, tmp_path: Path) -> None:
    ids = sorted(pq.read_table(calibration, columns=["sample_id"])["sample_id"].to_pylist())
    rows = answered_rows(processor, calibration, tmp_path, Sensitivity(samples=5))
    assert sorted(path.stem for path in rows.paths) == ids[:5]


def test_probes_are_not_measured(processor: Any, tmp_path: Path) -> None:
    rows = [row | {"domain": ("math", "native")[i % 2]} for i, row in enumerate(models.rows(12))]
    mixed = answered_samples.calibration(tmp_path / "mixed", rows)
    answered = answered_rows(processor, mixed, tmp_path / "rows", Sensitivity(samples=100))
    assert {path.stem for path in answered.paths} == {sample_id(row) for row in rows[1::2]}


def lengths_of_prompts(processor: Any, calibration: Path) -> list[int]:
    rows = pq.read_table(calibration).to_pylist()
    labels = [encode_training(processor, row)["labels"].tolist() for row in rows]
    return [next(t for t, label in enumerate(row) if label != IGNORED) for row in labels]


def test_rows_whose_answer_is_cut_off_are_counted(
    processor: Any, calibration: Path, tmp_path: Path
) -> None:
    prompts = lengths_of_prompts(processor, calibration)
    params = Sensitivity(samples=100, max_length=max(prompts))
    rows = answered_rows(processor, calibration, tmp_path, params)
    assert rows.skipped == prompts.count(max(prompts))
    assert len(rows.paths) == len(prompts) - rows.skipped


def test_rows_without_any_answer_are_refused(processor: Any, tmp_path: Path) -> None:
    calibration = answered_samples.calibration(tmp_path / "calibration", [models.row(0)])
    [length] = lengths_of_prompts(processor, calibration)
    with pytest.raises(InputError, match=rf"no answer .* measure.max_length = {length} "):
        answered_rows(processor, calibration, tmp_path / "rows", Sensitivity(max_length=length))


def test_rows_that_cannot_be_read_are_skipped_and_counted(processor: Any, tmp_path: Path) -> None:
    damaged, *rows = models.rows(12)[::-1]
    damaged["images"][0]["bytes"] = b"no picture"
    calibration = answered_samples.calibration(tmp_path / "calibration", [damaged, *rows])
    answered = answered_rows(processor, calibration, tmp_path / "rows", Sensitivity(samples=100))
    assert answered.skipped == 1
    assert {path.stem for path in answered.paths} == {sample_id(row) for row in rows}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [(12, r"sample [0-9a-f]{16} of made_up: .* max_length = 8"), (0, "no rows to calibrate on")],
    ids=["no prompt is short enough", "no rows"],
)
def test_a_set_without_rows_to_measure_is_refused(
    processor: Any, calibration: Path, tmp_path: Path, rows: int, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        answered_rows(
            processor, calibration if rows else tmp_path, tmp_path, Sensitivity(max_length=8)
        )


def test_batches_are_what_their_rows_encode_to_within_the_budget(
    processor: Any, calibration: Path, tmp_path: Path
) -> None:
    by_id = {row["sample_id"]: row for row in pq.read_table(calibration).to_pylist()}
    rows = answered_rows(processor, calibration, tmp_path, Sensitivity(batch_tokens=256))
    assert sorted(i for group in rows.groups for i in group) == list(range(12))
    assert len(rows.groups) > 2
    for number, group in enumerate(rows.groups):
        batch = rows.batch(number, torch.device("cpu"))
        encoded = [encode_training(processor, by_id[rows.paths[i].stem]) for i in group]
        expected = collate(encoded, pad_token_id=processor.tokenizer.pad_token_id)
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in batch)
        assert batch["labels"].numel() <= 256


def test_rows_are_encoded_once(
    processor: Any, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = answered_rows(processor, calibration, tmp_path, Sensitivity())
    monkeypatch.setattr(chat, "encode_training", None)
    assert answered_rows(processor, calibration, tmp_path, Sensitivity()) == rows
