"""Every update sees the same rows however many processes share it."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from interlace.errors import InputError
from interlace.model.chat import IGNORED, encode_training
from interlace.model.open import open_processor
from interlace.params.healing import Finetune
from interlace.training.rows import (
    TrainingBatches,
    TrainingRows,
    collator,
    load_passes,
    update_count,
)

padded = partial(collator, positions=None, one_row=False, blank=False)


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "split"),
    [(32, 16, 1, (16, 2)), (32, 16, 8, (4, 1)), (10, 4, 1, None), (32, 16, 3, None)],
)
def test_an_update_is_split_into_equal_passes_or_refused(
    batch: int, micro: int, processes: int, split: tuple[int, int] | None
) -> None:
    params = Finetune(batch_size=batch, micro_batch_size=micro)
    if split:
        batches = TrainingBatches.split(100, 0, params, processes)
        assert (batches.micro_batch_size, batches.passes) == split
    else:
        with pytest.raises(InputError, match=f"batch_size = {batch}.*{processes} processes"):
            TrainingBatches.split(100, 0, params, processes)


def test_a_file_that_holds_no_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"part-00000\.parquet: not a readable Parquet file"):
        TrainingRows(tmp_path, None, max_length=8, cache=tmp_path / "cache")


def test_rows_with_damaged_pages_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    ids = [f"{number:09}" for number in range(5000)]
    pq.write_table(pa.table({"sample_id": ids}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    begin = len(content) // 3
    content[begin : begin + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not a readable Parquet file: .*corrupt"):
        TrainingRows(tmp_path, None, max_length=8, cache=tmp_path / "cache")


@given(
    rows=st.integers(1, 50),
    batch=st.integers(1, 24),
    micro=st.integers(1, 6),
    processes=st.integers(1, 4),
    step=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_the_passes_of_all_processes_are_the_update(
    rows: int, batch: int, micro: int, processes: int, step: int, seed: int
) -> None:
    assume(batch % (micro * processes) == 0)
    batches = TrainingBatches(rows, seed, batch, micro, processes)
    indices = [
        row
        for number in range(batches.passes)
        for process in range(processes)
        for row in batches.of_pass(step, number, process)
    ]
    one_pass = TrainingBatches(rows, seed, batch, batch, 1)
    assert indices == batches.of_update(step) == one_pass.of_update(step)


@given(rows=st.integers(1, 50), batch=st.integers(1, 24), epochs=st.integers(1, 3))
def test_every_row_comes_once_per_epoch(rows: int, batch: int, epochs: int) -> None:
    batches = TrainingBatches(rows, 3, batch, batch, 1)
    steps = update_count(Finetune(epochs=epochs, batch_size=batch), rows)
    indices = [row for step in range(steps) for row in batches.of_update(step)]
    assert set(Counter(indices[: rows * epochs]).values()) == {epochs}
    assert 0 <= len(indices) - rows * epochs < batch


def test_each_epoch_and_seed_has_its_own_order() -> None:
    batches = TrainingBatches(50, 0, 50, 50, 1)
    orders = [batches.of_update(0), batches.of_update(1), list(range(50))]
    orders.append(TrainingBatches(50, 1000, 50, 50, 1).of_update(0))
    assert len(set(map(tuple, orders))) == 4


def test_max_steps_or_a_share_of_an_epoch_decide_the_updates() -> None:
    assert update_count(Finetune(max_steps=7, epochs=3), rows=1000) == 7
    assert update_count(Finetune(epochs=0.5, batch_size=10), rows=101) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_that_is_too_long_is_named_in_one_line(
    project: Path, processor: Any, tmp_path: Path, workers: int
) -> None:
    rows = TrainingRows(project / "data/train", processor, 8, tmp_path)
    passes = load_passes(
        rows,
        TrainingBatches(16, 0, 4, 4, 1),
        padded(processor),
        steps=range(1),
        process=0,
        workers=workers,
    )
    with pytest.raises(InputError, match=r"^sample [0-9a-f]{16} of made_up: .* max_length = 8$"):
        next(passes)


def test_only_rows_without_any_image_get_a_blank_one_without_labels(processor: Any) -> None:
    text = [encode_training(processor, models.row(seed, images=0)) for seed in range(3)]
    plain, blank = padded(processor)(text), padded(processor, blank=True)(text)
    assert "pixel_values" in blank.inputs and "pixel_values" not in plain.inputs
    assert blank.tokens == plain.tokens
    assert (blank.labels[-1] == IGNORED).all()
    assert (blank.labels != IGNORED).sum() == (plain.labels != IGNORED).sum()
    mixed = [*text, encode_training(processor, models.row(1))]
    assert len(padded(processor, blank=True)(mixed).labels) == len(mixed)


def test_a_text_only_model_gets_no_blank_image(tmp_path: Path) -> None:
    processor = open_processor(models.tiny_llama(tmp_path))
    text = [encode_training(processor, models.row(seed, images=0)) for seed in range(3)]
    assert len(padded(processor, blank=True)(text).labels) == len(text)
