"""Calibration rows with answers: encoded once, kept on disk, read in batches.

A batch is read when it is measured, so that memory does not grow with the number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from interlace.errors import InputError
from interlace.model import chat
from interlace.model.batches import batches, encode_rows
from interlace.outputs import whole
from interlace.params.measuring import Sensitivity
from interlace.samples import rows as samples


@dataclass(frozen=True)
class AnsweredRows:
    """Rows with answers, as model inputs on disk.

    Attributes:
        paths: one file per row.
        lengths: of the rows, tokens.
        batch_tokens: most padded tokens of a batch.
        pad_token_id: fills batches up.
        skipped: rows that were left out because they cannot be read or have no answer tokens.
    """

    paths: Sequence[Path]
    lengths: Sequence[int]
    batch_tokens: int
    pad_token_id: int
    skipped: int

    @cached_property
    def groups(self) -> Sequence[Sequence[int]]:
        """The rows of each batch."""
        return batches(self.lengths, self.batch_tokens)

    def split(self, every: int) -> tuple[AnsweredRows, AnsweredRows]:
        """All rows but every n-th, and the n-th ones, in the order of their ids.

        Ids are hashes of the rows' content, so that the parting is as good as drawn.
        """
        order = sorted(range(len(self.paths)), key=lambda i: self.paths[i].name)
        parts = [order[every - 1 :: every]]
        parts.insert(0, [i for i in order if i not in set(parts[0])])
        rest, held = (
            replace(
                self,
                paths=[self.paths[i] for i in part],
                lengths=[self.lengths[i] for i in part],
            )
            for part in parts
        )
        return rest, held

    def batch(self, number: int, device: torch.device) -> chat.Inputs:
        """Inputs and labels of one batch, per token [B, T]."""
        rows = [load_file(self.paths[i]) for i in self.groups[number]]
        batch = chat.collate(rows, pad_token_id=self.pad_token_id)
        return {name: value.to(device) for name, value in batch.items()}


def answer_tokens(labels: Tensor) -> int:
    """How many labels a token stands in front of to predict them; labels are [T] or [B, T]."""
    return int((labels[..., 1:] != chat.IGNORED).sum())


def answered_rows(
    processor: Any, calibration: Path, folder: Path, params: Sensitivity
) -> AnsweredRows:
    """Encode the native calibration rows whose ids, which are hashes, rank lowest.

    Args:
        processor: the model's processor.
        calibration: folder that `sample` wrote.
        folder: for encoded rows; those that are there are taken as they are.
        params: how many rows, how long, and how many tokens make a batch.

    Raises:
        InputError: no rows, or none that can be read and has an answer.
    """
    chosen = _lowest_ids(calibration, params.samples)
    paths, lengths, reasons = [], [], []
    for row in samples.iterate(calibration):
        if row["sample_id"] not in chosen:
            continue
        path = folder / f"{row['sample_id']}.safetensors"
        if not path.is_file() and (reason := _write_encoded(processor, row, path, params)):
            reasons.append(f"sample {row['sample_id']} of {row['source']}: {reason}")
            continue
        with safe_open(path, "pt") as file:
            labels = file.get_tensor("labels")  # [T]
        if answer_tokens(labels):
            paths.append(path)
            lengths.append(labels.shape[0])
    if not paths and reasons:
        raise InputError(
            f"{calibration}: {len(reasons)} of {len(chosen)} rows cannot be read, and the others"
            f" have no answer left; the first is {reasons[0]}; repair the data, or raise"
            " sensitivity.max_length"
        )
    if not paths:
        raise InputError(
            f"{calibration}: no answer is left in {len(chosen)} rows of at most"
            f" sensitivity.max_length = {params.max_length} tokens; raise it"
        )
    pad = processor.tokenizer.pad_token_id or 0
    return AnsweredRows(paths, lengths, params.batch_tokens, pad, len(chosen) - len(paths))


def _lowest_ids(calibration: Path, n: int) -> set[str]:
    ids: list[str] = []
    for path in calibration.glob("*.parquet"):
        columns = pq.read_table(path, columns=["sample_id", "domain"]).to_pydict()
        pairs = zip(columns["sample_id"], columns["domain"], strict=True)
        ids += [sample_id for sample_id, domain in pairs if domain == "native"]
    if not ids:
        raise InputError(f"{calibration}: no rows to calibrate on; run `dvc repro sample`")
    return set(sorted(ids)[:n])


def _write_encoded(
    processor: Any, row: dict[str, Any], path: Path, params: Sensitivity
) -> str | None:
    """Keep a row's inputs and labels; returns why not, where it cannot be read."""
    examples, left_out = encode_rows(processor, {0: row}, params.max_length, answers=True)
    if left_out:
        return left_out[0]
    with whole(path) as partial:
        save_file({name: value.contiguous() for name, value in examples[0].items()}, partial)
    return None
