"""Adapters are merged into the written weights; all others keep their bytes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import models
import torch
from plans import PLAN
from training_runs import TUNED, column, moved_weights, tune

from interlace.model import chat
from interlace.model.open import open_model
from interlace.params.healing import Finetune
from interlace.training import lora

ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
LINEARS = [f"self_attn.{name}" for name in ATTENTION] + [f"mlp.{name}" for name in MLP]


def test_the_merged_model_answers_as_the_one_with_adapters(project: Path, processor: Any) -> None:
    prompts = [chat.encode_prompt(processor, row) for row in models.rows(3)]
    batch = chat.collate(prompts, pad_token_id=0)
    batch.pop("labels")
    generator = torch.Generator().manual_seed(0)
    plain, adapted = (open_model(project / "artifacts/pruned") for _ in range(2))
    lora.adapt(adapted, PLAN.tuned_positions, Finetune(lora_rank=4, lora_alpha=8, lora_dropout=0))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if lora.is_adapter(name):
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
        expected, unadapted = adapted(**batch).logits, plain(**batch).logits
        merged = lora.merged_weights(adapted, lambda _: nullcontext())
        plain.load_state_dict(merged, strict=False)
        logits = plain(**batch).logits
    assert (expected - unadapted).abs().max() > 1e-2
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_a_run_with_adapters_writes_a_stock_checkpoint_with_other_linears(
    project: Path, tmp_path: Path
) -> None:
    tune(project, tmp_path, lora_rank=4)
    losses = column(tmp_path / "loss.csv")
    assert losses[-1] < losses[0]
    open_model(tmp_path / "tuned")
    assert moved_weights(project / "artifacts/pruned", tmp_path / "tuned") == {
        f"{prefix}{name}.weight" for prefix in TUNED for name in LINEARS
    }
