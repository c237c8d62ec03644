"""Adapters are merged into what is written; everything else keeps its bytes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from healing.test_finetune import curve, project, tune, weights
from interruptions import interrupt
from pruning.test_export import PLAN, PREFIX

from interlace.model import chat
from interlace.model.open import open_model
from interlace.params.healing import Finetune
from interlace.training import loop as training
from interlace.training import lora

__all__ = ["project"]
RANK = Finetune(lora_rank=4, lora_alpha=8, lora_dropout=0)
POSITIONS = PLAN.tuned_positions


def adapted(folder: Path) -> Any:
    """A model whose adapters do something."""
    model = open_model(folder)
    lora.adapt(model, POSITIONS, RANK)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


def test_the_merged_model_answers_as_the_one_with_adapters(project: Path, processor: Any) -> None:
    pruned = project / "artifacts/pruned"
    batch = chat.collate(
        [chat.encode_prompt(processor, row) for row in models.rows(3)], pad_token_id=0
    )
    batch.pop("labels")
    model, plain = adapted(pruned), open_model(pruned)
    with torch.no_grad():
        expected, before = model(**batch).logits, plain(**batch).logits
        plain.load_state_dict(lora.merged(model, lambda _: nullcontext()), strict=False)
        found = plain(**batch).logits
    assert (expected - before).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_adapters_start_as_no_change(project: Path) -> None:
    model = open_model(project / "artifacts/pruned")
    before = {n: w.clone() for n, w in model.state_dict().items()}
    lora.adapt(model, POSITIONS, RANK)
    for name, weight in lora.merged(model, lambda _: nullcontext()).items():
        assert torch.equal(weight, before[name])


def test_every_linear_of_the_tuned_layers_and_nothing_else_is_trained(project: Path) -> None:
    model = open_model(project / "artifacts/pruned")
    lora.adapt(model, POSITIONS, RANK)
    free = {name for name, weight in model.named_parameters() if weight.requires_grad}
    linears = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj"
    linears += " mlp.gate_proj mlp.up_proj mlp.down_proj"
    assert free == {
        f"{PREFIX}.{position}.{name}.lora_{side}.default.weight"
        for position in POSITIONS
        for name in linears.split()
        for side in "AB"
    }


def test_a_run_with_adapters_writes_a_stock_checkpoint(project: Path, tmp_path: Path) -> None:
    asked = {"lora_rank": 4, "lora_dropout": 0.1, "learning_rate": 1e-2}
    after, points = tune(project, tmp_path, **asked)
    before = weights(project / "artifacts/pruned")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    tuned = tuple(f"{PREFIX}.{position}." for position in POSITIONS)
    assert before.keys() == after.keys()
    assert moved == {n for n in before if n.startswith(tuned) and n.endswith("proj.weight")}
    assert points[-1]["loss"] < points[0]["loss"]
    open_model(tmp_path / "tuned")


def test_an_interrupted_run_goes_on_to_the_same_weights(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"lora_rank": 4, "learning_rate": 1e-2}
    expected, _ = tune(project, tmp_path / "whole", **asked)
    interrupt(monkeypatch, training, 4)  # behind the resume point at 2
    with pytest.raises(KeyboardInterrupt):
        tune(project, tmp_path / "broken", **asked)
    found, _ = tune(project, tmp_path / "broken", **asked)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert curve(tmp_path / "broken/loss.csv") == curve(tmp_path / "whole/loss.csv")
