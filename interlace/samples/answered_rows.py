"""Calibration rows with answers: encoded once, kept on disk, and read batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from interlace.errors import InputError, MissingInputError
from interlace.model.batches import batches, encode_rows
from interlace.model.chat import IGNORED, Inputs, collate
from interlace.params.measuring import SCREENED, Sensitivity
from interlace.samples.rows import iterate, lowest_ids
from interlace.system.resumable import intact, kept


@dataclass(frozen=True)
class AnsweredRows:
    """Rows with answers, as model inputs on disk.

    Attributes:
        paths: one file per row.
        lengths: of the rows, tokens.
        batch_tokens: most padded tokens of a batch.
        pad_token_id: id of the padding token.
        skipped: number of rows that cannot be read or have no answer tokens.
    """

    paths: Sequence[Path]
    lengths: Sequence[int]
    batch_tokens: int
    pad_token_id: int
    skipped: int

    @cached_property
    def groups(self) -> Sequence[Sequence[int]]:
        """The numbers of the rows of each batch."""
        return batches(self.lengths, self.batch_tokens)

    def split(self, every: int) -> tuple[AnsweredRows, AnsweredRows]:
        """Split off each n-th row in the order of ids; return the others, and these.

        Ids are hashes of the rows' content, so the split is as good as random.
        """
        order = sorted(range(len(self.paths)), key=lambda i: self.paths[i].name)
        remaining = [i for n, i in enumerate(order, 1) if n % every]
        return self._subset(remaining), self._subset(order[every - 1 :: every])

    def screening(self) -> tuple[AnsweredRows, AnsweredRows]:
        """Split off rows to screen many models on; return the others, and these.

        Too few rows are not split: there are no others, or rather these are all.
        """
        rest, screened = self.split(SCREENED)
        return (rest, screened) if screened.paths else (self, self)

    def _subset(self, numbers: Sequence[int]) -> AnsweredRows:
        paths, lengths = [self.paths[i] for i in numbers], [self.lengths[i] for i in numbers]
        return replace(self, paths=paths, lengths=lengths)

    def batch(self, number: int, device: torch.device) -> Inputs:
        """Read the inputs and labels of one batch, per token [B, T]."""
        rows = [load_file(self.paths[i]) for i in self.groups[number]]
        batch = collate(rows, pad_token_id=self.pad_token_id)
        return {name: value.to(device) for name, value in batch.items()}


def answer_tokens(labels: Tensor) -> int:
    """Count the labels, [T] or [B, T], that a token comes before and can predict."""
    return int((labels[..., 1:] != IGNORED).sum())


def answered_rows(
    processor: Any, calibration: Path, folder: Path, params: Sensitivity
) -> AnsweredRows:
    """Encode the native calibration rows of lowest ids, which are hashes.

    Args:
        processor: the model's processor.
        calibration: folder that `sample` wrote.
        folder: for encoded rows; those already in it are not encoded again.
        params: the number of rows, their length, and the tokens of a batch.

    Raises:
        InputError: there are no rows, or none can be read and has an answer.
    """
    ids = lowest_ids(calibration, params.samples)
    if not ids:
        raise MissingInputError(calibration, "no rows to calibrate on")
    paths, lengths, reasons = [], [], []
    for row in iterate(calibration):
        if row["sample_id"] not in ids:
            continue
        path = folder / f"{row['sample_id']}.safetensors"
        if not intact(path) and (reason := _write_encoded(processor, row, path, params)):
            reasons.append(f"sample {row['sample_id']} of {row['source']}: {reason}")
            continue
        with safe_open(path, "pt") as file:
            labels = file.get_tensor("labels")  # [T]
        if answer_tokens(labels):
            paths.append(path)
            lengths.append(labels.shape[0])
    if not paths and reasons:
        raise InputError(
            f"{calibration}: {len(reasons)} of {len(ids)} rows cannot be read, and the others"
            f" have no answer left; the first is {reasons[0]}; repair the data, or raise"
            " measure.max_length"
        )
    if not paths:
        raise InputError(
            f"{calibration}: no answer is left in {len(ids)} rows of at most"
            f" measure.max_length = {params.max_length} tokens; raise it"
        )
    pad = processor.tokenizer.pad_token_id or 0
    return AnsweredRows(paths, lengths, params.batch_tokens, pad, len(ids) - len(paths))


def _write_encoded(
    processor: Any, row: dict[str, Any], path: Path, params: Sensitivity
) -> str | None:
    """Write a row's inputs and labels; return the reason if it cannot be read."""
    examples, skipped = encode_rows(processor, {0: row}, params.max_length, answers=True)
    if skipped:
        return skipped[0]
    with kept(path) as partial:
        save_file({name: value.contiguous() for name, value in examples[0].items()}, partial)
    return None
