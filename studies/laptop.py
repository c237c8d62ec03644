"""The options of healing that no study varies: those of small models on a few cores."""

from __future__ import annotations

from interlace.params.healing import Finetune

LAPTOP = Finetune(
    min_pixels=None,
    max_pixels=None,
    gradient_checkpointing=False,
    zero_stage=0,
    workers=0,
    save_steps=10_000,
    log_steps=10,
)
