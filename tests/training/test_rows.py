"""Every update sees the same rows however many processes share it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from drawn_rows import Draw
from hypothesis import assume, given
from hypothesis import strategies as st

from interlace.errors import InputError
from interlace.model.chat import IGNORED, encode_training
from interlace.params.healing import Finetune
from interlace.training.rows import Schedule, TrainingRows, collate, passes, schedule, updates

SPLITS = [(32, 16, 1, (16, 2)), (32, 16, 2, (16, 1)), (32, 16, 8, (4, 1)), (4, 16, 1, (4, 1))]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    pq.write_table(pa.Table.from_pylist(models.rows(12)), folder / "rows.parquet")
    Draw(folder)(folder / "rows.parquet")
    return folder / "train"


@pytest.mark.parametrize(("batch", "micro", "processes", "split"), SPLITS)
def test_an_update_is_split_into_equal_passes(
    batch: int, micro: int, processes: int, split: tuple[int, int]
) -> None:
    found = schedule(100, 0, Finetune(batch_size=batch, micro_batch_size=micro), processes)
    assert (found.micro, found.passes) == split


@pytest.mark.parametrize(("batch", "micro", "processes"), [(10, 4, 1), (32, 16, 3), (4, 4, 8)])
def test_a_batch_that_does_not_divide_is_refused(batch: int, micro: int, processes: int) -> None:
    params = Finetune(batch_size=batch, micro_batch_size=micro)
    with pytest.raises(InputError, match=f"batch_size = {batch} does not divide"):
        schedule(100, 0, params, processes)


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
    plan = Schedule(rows, seed, batch, micro, processes)
    shared = [
        row
        for number in range(plan.passes)
        for process in range(processes)
        for row in plan.pass_of(step, number, process)
    ]
    assert shared == plan.update(step) == Schedule(rows, seed, batch, batch, 1).update(step)


@given(rows=st.integers(1, 50), batch=st.integers(1, 24), epochs=st.integers(1, 3))
def test_every_row_comes_once_per_epoch(rows: int, batch: int, epochs: int) -> None:
    plan = Schedule(rows, 3, batch, batch, 1)
    count = updates(Finetune(epochs=epochs, batch_size=batch), rows)
    seen = [row for step in range(count) for row in plan.update(step)]
    assert set(Counter(seen[: rows * epochs]).values()) == {epochs}
    assert 0 <= len(seen) - rows * epochs < batch


def test_epochs_are_shuffled_anew() -> None:
    plan = Schedule(50, 0, 50, 50, 1)
    assert plan.update(0) != plan.update(1)
    assert plan.update(0) != list(range(50))
    assert plan.update(0) != Schedule(50, 1000, 50, 50, 1).update(0)


def test_a_number_of_steps_wins_over_epochs() -> None:
    assert updates(Finetune(max_steps=7, epochs=3), 1000) == 7


def test_part_of_an_epoch_is_enough() -> None:
    assert updates(Finetune(epochs=0.5, batch_size=10), 100) == 5


@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_that_is_too_long_is_named_in_one_line(
    train: Path, processor: Any, tmp_path: Path, workers: int
) -> None:
    rows = TrainingRows(train, processor, 8, tmp_path)
    plan, made = Schedule(12, 0, 4, 4, 1), collate(processor, None, one_row=False, blank=False)
    loaded = passes(rows, plan, made, steps=range(1), process=0, workers=workers)
    with pytest.raises(InputError, match=r"^sample [0-9a-f]{16} of made_up: .* max_length = 8$"):
        next(loaded)


def test_a_run_that_goes_on_sees_the_rows_that_it_had_not(
    train: Path, processor: Any, tmp_path: Path
) -> None:
    rows = TrainingRows(train, processor, 512, tmp_path)
    plan, made = Schedule(12, 0, 4, 2, 1), collate(processor, None, one_row=False, blank=False)
    whole = list(passes(rows, plan, made, steps=range(5), process=0, workers=0))
    rest = list(passes(rows, plan, made, steps=range(3, 5), process=0, workers=0))
    assert len(whole) == 5
    for one, other in zip(whole[3:], rest, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a.inputs["input_ids"], b.inputs["input_ids"])
            assert a.tokens == b.tokens


def test_rows_without_an_image_get_a_blank_one_without_labels(processor: Any) -> None:
    text = [encode_training(processor, models.row(seed, images=0)) for seed in range(3)]
    plain = collate(processor, None, one_row=False, blank=False)(text)
    blank = collate(processor, None, one_row=False, blank=True)(text)
    assert "pixel_values" in blank.inputs
    assert "pixel_values" not in plain.inputs
    assert blank.tokens == plain.tokens
    assert (blank.labels[-1] == IGNORED).all()
    assert (blank.labels != IGNORED).sum() == (plain.labels != IGNORED).sum()


def test_rows_with_an_image_get_no_blank_one(processor: Any) -> None:
    rows = [encode_training(processor, models.row(seed, images=seed)) for seed in range(2)]
    made = collate(processor, None, one_row=False, blank=True)(rows)
    assert len(made.labels) == 2


def test_samples_are_called_by_their_ids(train: Path, processor: Any, tmp_path: Path) -> None:
    rows = TrainingRows(train, processor, 512, tmp_path)
    assert rows.sample_ids([5, 2]) == [rows.rows[i]["sample_id"] for i in (5, 2)]
