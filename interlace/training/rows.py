"""Which rows every update sees, and their way from disk to the model.

The order of rows is a function of the seed alone: any process can say which rows any update sees,
so that a run can go on anywhere, with any number of processes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interlace import distributed as processes
from interlace.errors import ContractError, InputError
from interlace.model import chat
from interlace.outputs import write_json
from interlace.params.healing import Recipe
from interlace.training import packing


class Pass(NamedTuple):
    """What one process computes at once.

    Attributes:
        inputs: of the model.
        labels: [B, T], -100 where there is nothing to predict.
        tokens: of its rows, padding left out.
    """

    inputs: chat.Inputs
    labels: Tensor
    tokens: int


Collate = Callable[[Sequence[chat.Inputs]], Pass]


class TrainingRows(torch.utils.data.Dataset[chat.Inputs]):
    """Rows of the training set, encoded when they are asked for; they stay on disk until then."""

    def __init__(self, train: Path, processor: Any, max_length: int, cache: Path) -> None:
        from datasets import load_dataset

        files = [str(path) for path in sorted(train.glob("*.parquet"))]
        self.rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(cache))
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
        """What rows are called."""
        return list(self.rows.select_columns("sample_id").select(indices)["sample_id"])


@dataclass(frozen=True)
class Schedule:
    """Which rows each pass of each update sees.

    An update sees `batch` rows: a stretch of an endless sequence in which every row comes once per
    epoch, each epoch shuffled anew. It is cut into passes of `micro` rows, dealt out to the
    processes in turn.

    Attributes:
        rows: of the training set.
        seed: of the shuffles.
        batch: rows per update.
        micro: rows per pass.
        processes: how many share an update.
    """

    rows: int
    seed: int
    batch: int
    micro: int
    processes: int

    @property
    def passes(self) -> int:
        """Passes per update of each process."""
        return self.batch // (self.micro * self.processes)

    def update(self, step: int) -> list[int]:
        """The rows of update `step`, counted from 0."""
        places = range(step * self.batch, (step + 1) * self.batch)
        return [
            shuffled(self.rows, self.seed + place // self.rows)[place % self.rows]
            for place in places
        ]

    def pass_of(self, step: int, number: int, process: int) -> list[int]:
        """The rows of one pass of one process."""
        begin = (number * self.processes + process) * self.micro
        return self.update(step)[begin : begin + self.micro]


@functools.lru_cache(maxsize=2)  # an update may see the end of one epoch and the next one's begin
def shuffled(rows: int, seed: int) -> Sequence[int]:
    """The numbers below `rows` in an order that the seed decides."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randperm(rows, generator=generator).tolist())


def schedule(rows: int, seed: int, params: Recipe, processes: int) -> Schedule:
    """Divide every update among the processes.

    Raises:
        InputError: the batch does not divide evenly.
    """
    share, rest = divmod(params.batch_size, processes)
    micro = min(params.micro_batch_size, max(share, 1))
    if rest or share % micro:
        raise InputError(
            f"finetune.batch_size = {params.batch_size} does not divide into {processes} processes"
            f" of {params.micro_batch_size} rows a pass; change batch_size or micro_batch_size"
        )
    return Schedule(rows, seed, params.batch_size, micro, processes)


def updates(params: Recipe, rows: int) -> int:
    """How many updates there are; the last one may begin another epoch to be full."""
    if params.max_steps > 0:
        return params.max_steps
    return max(1, math.ceil(params.epochs * rows / params.batch_size))


def collate(
    processor: Any, positions: packing.Positions | None, *, one_row: bool, blank: bool
) -> Collate:
    """A function that makes a pass of encoded rows.

    Args:
        processor: the model's.
        positions: of one sample, to pack; none: pad.
        one_row: pack all rows into one.
        blank: add a small image without labels where no row has one. Processes that share weights
            must all run the same modules, the vision tower too.
    """
    pad = processor.tokenizer.pad_token_id or 0
    extra = blank_example(processor) if blank else None

    def made(examples: Sequence[chat.Inputs]) -> Pass:
        tokens = sum(example["input_ids"].shape[0] for example in examples)
        if extra and not any(example.keys() - chat.PER_TOKEN for example in examples):
            examples = [*examples, extra]
        if positions:
            batch = packing.pack(examples, positions, pad_token_id=pad, one_row=one_row)
        else:
            batch = chat.collate(examples, pad_token_id=pad)
        return Pass(batch, batch.pop("labels"), tokens)

    return made


def blank_example(processor: Any) -> chat.Inputs:
    """A sample with a small black image and no labels."""
    from PIL import Image

    row = {"images": [Image.new("RGB", (64, 64))], "texts": [{"user": "", "assistant": ""}]}
    example = chat.encode_training(processor, row)
    return example | {"labels": torch.full_like(example["labels"], chat.IGNORED)}


def passes(
    rows: TrainingRows,
    plan: Schedule,
    made: Collate,
    *,
    steps: range,
    process: int,
    workers: int,
) -> Iterator[list[Pass]]:
    """The passes of one process, one list per update.

    Raises:
        InputError: a row cannot be used.
    """
    indices = [(step, number) for step in steps for number in range(plan.passes)]
    loader = torch.utils.data.DataLoader(
        rows,
        batch_sampler=_Indices(plan, indices, process),
        collate_fn=made,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    ready = iter(loader)
    try:
        for _ in steps:
            yield [next(ready) for _ in range(plan.passes)]
    except InputError as error:  # a worker puts its traceback in front
        raise InputError(str(error).rsplit("InputError: ", 1)[-1].strip()) from None


class _Indices(torch.utils.data.Sampler[list[int]]):
    """The rows of each pass, found when it is their turn."""

    def __init__(self, plan: Schedule, indices: Sequence[tuple[int, int]], process: int) -> None:
        self.plan, self.indices, self.process = plan, indices, process

    def __iter__(self) -> Iterator[list[int]]:
        for step, number in self.indices:
            yield self.plan.pass_of(step, number, self.process)

    def __len__(self) -> int:
        return len(self.indices)


RECORD = "not-finite.json"


class NotFiniteError(Exception):
    """Passes whose loss is not a number.

    Attributes:
        places: the passes, as (process, pass) of an update.
        what: is not finite.
        rate: the learning rate's parameter.
    """

    def __init__(
        self,
        places: Sequence[tuple[int, int]],
        what: str = "the loss",
        rate: str = "finetune.learning_rate",
    ) -> None:
        super().__init__(places, what, rate)
        self.places, self.what, self.rate = places, what, rate


def stopped(
    error: NotFiniteError, rows: TrainingRows, shares: Schedule, step: int, scratch: Path
) -> ContractError:
    """Keep the samples of the passes that went wrong.

    Args:
        error: says which passes.
        rows: of the training set.
        shares: which rows each pass sees.
        step: updates done before.
        scratch: folder for the file that names all samples.
    """
    indices = [i for process, n in error.places for i in shares.pass_of(step, n, process)]
    ids = rows.sample_ids(indices)
    kept = scratch / RECORD
    if processes.process_rank() == 0:
        write_json(kept, {"step": step + 1, "sample_ids": ids})
    named = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    return ContractError(
        f"{error.what} is not finite in update {step + 1}, with samples {named} (all in {kept});"
        f" lower {error.rate}, or take these samples out of the data"
    )
