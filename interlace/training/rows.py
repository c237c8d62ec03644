"""The rows of each update, and their way from disk to the model.

The order of rows is a function of the seed alone, so that a run can resume after any update, with
any number of processes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interlace.errors import InputError
from interlace.model import chat
from interlace.model.prefetch import prefetched
from interlace.model.text import TextProcessor
from interlace.params.healing import Recipe
from interlace.samples.parquet import read_schema, readable
from interlace.system.outputs import raise_if_refused, refusals_named
from interlace.system.resumable import unpacked_once
from interlace.system.slow import SECONDS
from interlace.training import packing


class Pass(NamedTuple):
    """The input of one forward pass of one process.

    Attributes:
        inputs: of the model.
        labels: [B, T], -100 where there is nothing to predict.
        tokens: of its rows, without padding.
    """

    inputs: chat.Inputs
    labels: Tensor
    tokens: int


Collator = Callable[[Sequence[chat.Inputs]], Pass]


class TrainingRows(torch.utils.data.Dataset[chat.Inputs]):
    """The training set: rows on disk, encoded on access.

    Raises:
        InputError: a file is none of rows.
    """

    def __init__(self, train: Path, processor: Any, max_length: int, cache: Path) -> None:
        from datasets import load_dataset
        from datasets.exceptions import DatasetGenerationError

        files = sorted(train.glob("*.parquet"))
        for path in files:
            read_schema(path)
        names = [str(path) for path in files]
        with unpacked_once(cache), refusals_named(cache):
            try:
                self.rows = load_dataset(
                    "parquet", data_files=names, split="train", cache_dir=str(cache)
                )
            except DatasetGenerationError as error:
                raise_if_refused(error, cache)
                with readable(str(train)):
                    raise error.__cause__ or error from None
        self.processor = processor
        self.max_length = max_length

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> chat.Inputs:
        row = self.rows[index]
        try:
            return chat.encode_training(self.processor, row, max_length=self.max_length)
        except InputError as error:
            raise InputError(f"sample {row['sample_id']} of {row['source']}: {error}") from None

    def sample_ids(self, indices: Sequence[int]) -> list[str]:
        """Return the ids of some rows."""
        return list(self.rows.select_columns("sample_id").select(indices)["sample_id"])


@dataclass(frozen=True)
class TrainingBatches:
    """The rows of each pass of each update.

    An update takes the next `batch_size` rows of an endless sequence that holds each row once per
    epoch, every epoch in a new random order. They are cut into passes of `micro_batch_size` rows,
    which are dealt out to the processes in turn.

    Attributes:
        rows: of the training set.
        seed: of the order.
        batch_size: rows per update.
        micro_batch_size: rows per pass.
        processes: that share an update.
    """

    rows: int
    seed: int
    batch_size: int
    micro_batch_size: int
    processes: int

    @classmethod
    def split(cls, rows: int, seed: int, params: Recipe, processes: int) -> TrainingBatches:
        """Split all updates evenly among the processes.

        Raises:
            InputError: the batch size does not divide.
        """
        per_process, remainder = divmod(params.batch_size, processes)
        micro_batch_size = min(params.micro_batch_size, max(per_process, 1))
        if remainder or per_process % micro_batch_size:
            raise InputError(
                f"finetune.batch_size = {params.batch_size} does not divide into {processes}"
                f" processes of {params.micro_batch_size} rows a pass; change batch_size or"
                " micro_batch_size"
            )
        return cls(rows, seed, params.batch_size, micro_batch_size, processes)

    @property
    def passes(self) -> int:
        """Passes per update of each process."""
        return self.batch_size // (self.micro_batch_size * self.processes)

    def of_update(self, step: int) -> list[int]:
        """Return the rows of the update that follows `step` others."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [
            shuffled(self.rows, self.seed + position // self.rows)[position % self.rows]
            for position in positions
        ]

    def of_pass(self, step: int, number: int, process: int) -> list[int]:
        """Return the rows of one pass of one process; both are counted from 0."""
        begin = (number * self.processes + process) * self.micro_batch_size
        return self.of_update(step)[begin : begin + self.micro_batch_size]


@functools.lru_cache(maxsize=2)  # an update may span the end of one epoch and the next one's start
def shuffled(rows: int, seed: int) -> Sequence[int]:
    """Return the numbers below `rows` in the seed's order."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randperm(rows, generator=generator).tolist())


def update_count(params: Recipe, rows: int) -> int:
    """Return the number of updates; the last one may reach into another epoch to be full."""
    if params.max_steps > 0:
        return params.max_steps
    return max(1, math.ceil(params.epochs * rows / params.batch_size))


def collator(
    processor: Any, positions: packing.Positions | None, *, one_row: bool, blank: bool
) -> Collator:
    """Return a function that makes a pass of encoded rows.

    Args:
        processor: the model's.
        positions: gives a sample's position ids, to pack; `None`: pad.
        one_row: pack all rows into one.
        blank: add a small image without labels where no row has one. Processes that share weights
            must all run the same modules, including the vision tower, if there is one.
    """
    pad_token_id = processor.tokenizer.pad_token_id or 0
    with_tower = not isinstance(processor, TextProcessor)
    blank_sample = encode_blank(processor) if blank and with_tower else None

    def collate(samples: Sequence[chat.Inputs]) -> Pass:
        tokens = sum(sample["input_ids"].shape[0] for sample in samples)
        if blank_sample and not any(sample.keys() - chat.PER_TOKEN for sample in samples):
            samples = [*samples, blank_sample]
        if positions:
            batch = packing.pack(samples, positions, pad_token_id=pad_token_id, one_row=one_row)
        else:
            batch = chat.collate(samples, pad_token_id=pad_token_id)
        return Pass(batch, batch.pop("labels"), tokens)

    return collate


def encode_blank(processor: Any) -> chat.Inputs:
    """Encode a small black image without labels."""
    from PIL import Image

    row = {"images": [Image.new("RGB", (64, 64))], "texts": [{"user": "", "assistant": ""}]}
    sample = chat.encode_training(processor, row)
    return sample | {"labels": torch.full_like(sample["labels"], chat.IGNORED)}


def load_passes(
    rows: TrainingRows,
    batches: TrainingBatches,
    collate: Collator,
    *,
    steps: range,
    process: int,
    workers: int,
) -> Iterator[list[Pass]]:
    """Yield the passes of one process, a list per update.

    Raises:
        InputError: a row cannot be used.
    """
    indices = (
        batches.of_pass(step, number, process) for step in steps for number in range(batches.passes)
    )

    def name(numbers: Sequence[int]) -> str:
        ids = rows.sample_ids(numbers)
        return f"a pass of samples {ids[0]} to {ids[-1]}" if len(ids) > 1 else f"sample {ids[0]}"

    passes = prefetched(
        lambda numbers: collate([rows[number] for number in numbers]),
        indices,
        workers=workers,
        name=name,
        setting="finetune.workers",
        seconds=SECONDS * batches.micro_batch_size,
    )
    with closing(passes):
        for _ in steps:
            yield [_pinned(next(passes)) for _ in range(batches.passes)]


def _pinned(single: Pass) -> Pass:
    """Return a pass in memory from which a GPU copies without waiting."""
    if not torch.cuda.is_available():
        return single
    inputs = {name: value.pin_memory() for name, value in single.inputs.items()}
    return single._replace(inputs=inputs, labels=single.labels.pin_memory())
