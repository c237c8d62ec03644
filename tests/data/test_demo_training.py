"""The demo's training, on a few rows and a tiny model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import fitting
import numpy as np
import train_model
from build_data import build_row
from drawing import Handwriting
from fitting import Share
from questions import SOURCES
from tiny_model import build_processor, build_tokenizer, conversations
from transformers import AutoModelForImageTextToText

SIZES = {
    "hidden": 24,
    "heads": 2,
    "kv_heads": 1,
    "intermediate": 32,
    "vision_hidden": 16,
    "vision_intermediate": 16,
    "vision_heads": 2,
}
TRAIN = {
    "phases": [
        {"layers": 2, "steps": 2, "peak_lr": 1e-3},
        {"layers": 4, "steps": 1, "peak_lr": 1e-3},
    ],
    "batch": 4,
    "weight_decay": 0.05,
    "warmup_share": 0.05,
    "checkpoint_every": 1,
}


def test_a_model_is_trained_deepened_and_saved(tmp_path: Path) -> None:
    rng, hand = np.random.default_rng(0), Handwriting("train", 0)
    rows = [build_row(source, rng, hand, "train") for source in SOURCES]
    processor = build_processor(build_tokenizer(conversations(rows), 400))
    inputs = [train_model.encode_training(processor, row) for row in rows]
    encoded = train_model.Encoded(inputs, [row["source"] for row in rows])
    params = {"seed": 0, "model": SIZES, "train": TRAIN}
    scratch, out = tmp_path / "scratch", tmp_path / "model"
    work = train_model.Work(processor, encoded, encoded, params, scratch, out)
    train = partial(train_model.train_process, work=work)
    fitting.run_process(Share(0, 1), str(tmp_path / "meeting"), train)
    steps = [(scratch / f"phase-{number}/step.json").read_text() for number in (0, 1)]
    assert steps == ["2", "1"]
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert len(model.get_decoder().layers) == 4
