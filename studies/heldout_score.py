"""Score models in memory on a held-out file as `evaluate` does, without lmms-eval's start-up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from interlace.evaluation.benchmarks.heldout import is_exact_match, read_sources
from interlace.model import chat


@dataclass(frozen=True)
class Question:
    """A row's prompt, its true answer and the benchmark it counts in."""

    inputs: chat.Inputs
    answer: str
    source: str


def questions(path: Path, processor: Any, limit: int | None = None) -> list[Question]:
    """Encode all rows of a held-out file, or the first `limit` rows of each source."""
    return list(_questions(path, processor, limit))


def _questions(path: Path, processor: Any, limit: int | None) -> Iterator[Question]:
    for source, table in read_sources(path).items():
        for row in table.slice(0, limit).to_pylist():
            inputs = chat.encode_messages(processor, chat.chat_messages(row)[:-1])
            inputs.pop("labels")
            yield Question(inputs, row["texts"][-1]["assistant"], source)


@torch.inference_mode()
def heldout_score(
    model: Any, processor: Any, prompts: list[Question], *, batch_size: int, max_new_tokens: int
) -> float:
    """Return the percentage of greedy answers that match exactly, averaged over sources."""
    from transformers import GenerationConfig

    tokenizer = processor.tokenizer
    ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
    greedy = GenerationConfig(
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=max_new_tokens,
    )
    order = sorted(range(len(prompts)), key=lambda i: prompts[i].inputs["input_ids"].shape[0])
    hits: dict[str, list[bool]] = {}
    for begin in range(0, len(order), batch_size):
        batch_questions = [prompts[i] for i in order[begin : begin + batch_size]]
        batch = chat.collate(
            [one.inputs for one in batch_questions],
            pad_token_id=tokenizer.pad_token_id,
            side="left",
        )
        batch = {name: value.to(model.device) for name, value in batch.items()}
        tokens = model.generate(**batch, generation_config=greedy)
        tokens = tokens[:, batch["input_ids"].shape[1] :]  # [B, T + new] -> [B, new]
        answers = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for one, answer in zip(batch_questions, answers, strict=True):
            hits.setdefault(one.source, []).append(is_exact_match(answer, one.answer))
    return 100 * fmean(fmean(matches) for matches in hits.values())
