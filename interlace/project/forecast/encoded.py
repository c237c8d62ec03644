"""Tokens of a few rows: encoded by the model's processor, or estimated where it is not here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.model.batches import encode_rows
from interlace.model.chat import IGNORED
from interlace.model.families import vision_token_ids
from interlace.project.forecast.row_facts import PIXELS, RowFacts, Spread
from interlace.project.forecast.sizes import Patch

LETTERS = 4  # of a token, where nothing can tell
_UNBOUND = 2**31  # tokens


def encoded_facts(
    rows: Sequence[Mapping[str, Any]], checkpoint: Checkpoint, patch: Patch
) -> RowFacts:
    """Count the tokens of rows.

    Args:
        rows: in FineVision's schema.
        checkpoint: its processor encodes them.
        patch: of the model's vision tower.

    Raises:
        InputError: no row can be read.
    """
    try:
        processor = checkpoint.open_processor()
    except InputError:
        return _estimated(rows, patch)
    begin = time.perf_counter()
    encoded, skipped = encode_rows(processor, dict(enumerate(rows)), _UNBOUND, answers=True)
    seconds = (time.perf_counter() - begin) / max(1, len(rows))
    if not encoded:
        reason = next(iter(skipped.values()), "there are none")
        raise InputError(f"none of {len(rows)} rows can be read: {reason}")
    ids = vision_token_ids(checkpoint.transformers_config())
    answered = {n: inputs["labels"].numpy() != IGNORED for n, inputs in encoded.items()}
    vision = {n: int(np.isin(x["input_ids"].numpy(), ids).sum()) for n, x in encoded.items()}
    images = {n: len(rows[n]["images"] or ()) for n in encoded}
    return RowFacts(
        text=Spread.of([len(answered[n]) - vision[n] for n in encoded]),
        prompt=Spread.of([int(answered[n].argmax()) - vision[n] for n in encoded]),
        answers=mean(int(labelled.sum()) for labelled in answered.values()),
        images=Spread.of(list(images.values())),
        image=Spread.of([vision[n] / images[n] for n in encoded if images[n]]),
        seconds=seconds,
        counted=len(encoded),
    )


def _estimated(rows: Sequence[Mapping[str, Any]], patch: Patch) -> RowFacts:
    """Estimate tokens from the letters of texts; nothing is known of images but their number."""
    prompts = [len(row["texts"][0]["user"]) / LETTERS for row in rows]
    answers = [sum(len(turn["assistant"]) for turn in row["texts"]) / LETTERS for row in rows]
    questions = [sum(len(turn["user"]) for turn in row["texts"]) / LETTERS for row in rows]
    image = PIXELS / patch.pixels if patch.pixels else float(patch.fixed)
    note = (
        f"the model's processor is not here: {LETTERS} letters are a token, and an image has"
        f" {PIXELS:,} pixels"
    )
    return RowFacts(
        text=Spread.of([a + q for a, q in zip(answers, questions, strict=True)]),
        prompt=Spread.of(prompts),
        answers=mean(answers),
        images=Spread.of([len(row["images"] or ()) for row in rows]),
        image=Spread(image, image),
        counted=len(rows),
        notes=(note,),
    )
