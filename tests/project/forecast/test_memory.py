"""Predicted memory against tensors of tiny models, added up one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from project.forecast import forecasts
from torch import nn

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.healing.finetune import freeze_all_but
from interlace.model.answer_loss import AnswerLoss
from interlace.model.decoder import decoder_layers
from interlace.model.states import STATES
from interlace.params.healing import Recipe
from interlace.project.forecast import memory
from interlace.project.forecast.machine import GIB
from interlace.project.forecast.row_facts import Spread
from interlace.project.forecast.sizes import Sizes, model_sizes
from interlace.speed.clock import first_token
from interlace.speed.memory import cache_bytes, weight_bytes
from interlace.training.engines import Plain

LAYERS, ROWS, TOKENS = 5, 3, 40


@pytest.fixture(params=["qwen3_vl", "llama"])
def model(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Sizes]:
    """A tiny model that may be changed, and its sizes; queries share keys, as in large ones."""
    monkeypatch.setattr(models, "SIZES", models.SIZES | {"hidden": 64, "heads": 4, "kv_heads": 2})
    make: Callable[..., Path] = {"qwen3_vl": models.tiny_qwen3_vl, "llama": models.tiny_llama}[
        request.param
    ]
    checkpoint = Checkpoint(make(tmp_path / "model", layers=LAYERS))
    return checkpoint.open_model(dtype="float32").requires_grad_(False), model_sizes(checkpoint)


def batch(padded: bool = False) -> dict[str, torch.Tensor]:
    ids = torch.randint(20, 200, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, -1] = 0 if padded else 1
    return {"input_ids": ids, "attention_mask": mask}


def saved_bytes(model: Any, tuned: Iterable[int], padded: bool) -> int:
    """Bytes that autograd saves in a pass, a storage once, without weights."""
    model.requires_grad_(False)
    for layer in tuned:
        decoder_layers(model)[layer].requires_grad_(True)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in weights:
            kept[pointer] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(**batch(padded), use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("padded", [False, True])
def test_a_layer_saves_what_autograd_keeps(padded: bool, model: tuple[Any, Sizes]) -> None:
    opened, sizes = model
    lowest, next_lowest, all_tuned = (
        saved_bytes(opened, tuned, padded) / (ROWS * TOKENS) for tuned in ([0], [1], range(LAYERS))
    )
    frozen = lowest - next_lowest  # one frozen layer more is in the graph
    tuned = frozen + (all_tuned - lowest) / (LAYERS - 1)
    row = TOKENS if padded else 0
    for saved, is_tuned in ((frozen, False), (tuned, True)):
        predicted = memory.saved_by_layer(sizes, 4, tuned=is_tuned, padded_row=row)
        assert predicted == pytest.approx(saved, rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_gradients_and_moments_of_one_process(dtype: str, model: tuple[Any, Sizes]) -> None:
    opened, sizes = model
    opened = opened.to(getattr(torch, dtype))
    freeze_all_but(opened, [1, 3])
    engine = Plain(AnswerLoss(opened), Recipe())
    inputs = batch()
    for last in (False, True):  # two passes: gradients of one are added to those of another
        loss = engine.loss({"input_ids": inputs["input_ids"]}, inputs["input_ids"])
        engine.backward(loss, last=last)
    gradients = sum(w.grad.nbytes for w in engine.masters.values() if w.grad is not None)
    while_adding = sum(w.nbytes for w in engine.tuned.values()) if dtype == "bfloat16" else 0
    engine.step(1e-3)
    moments = sum(
        value.nbytes
        for state in engine.optimizer.state.values()
        for key, value in state.items()
        if key != "step"
    )
    masters = sum(w.nbytes for n, w in engine.masters.items() if w is not engine.tuned[n])
    b = 4 if dtype == "float32" else 2
    states = memory.model_states(sizes, Recipe(), b, 2 * sizes.layer, 1)
    assert states.weights == pytest.approx(sum(p.nbytes for p in opened.parameters()))
    assert states.weights == pytest.approx(weight_bytes(opened), rel=0.01)
    assert states.gradients == pytest.approx(gradients + while_adding)
    assert states.optimizer == pytest.approx(masters + moments)


def shares(tensors: list[int], processes: int, size: int) -> int:
    """Bytes of the largest share, tensor by tensor, the slow way."""
    by_process = [0] * processes
    for numbers in tensors:
        for number in range(numbers):
            by_process[number * processes // numbers] += size
    return max(by_process)


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("processes", [1, 4])
def test_zero_shares_out_what_each_stage_does(
    stage: int, processes: int, model: tuple[Any, Sizes], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, sizes = model
    monkeypatch.setattr(memory, "LIVE", 0)  # all that is gathered is one matrix at a time
    monkeypatch.setattr(memory, "BUCKET", 0)
    every = [p.numel() for p in opened.parameters()]
    tuned = [p.numel() for n in (1, 3) for p in decoder_layers(opened)[n].parameters()]
    recipe = Recipe(zero_stage=stage)
    states = memory.model_states(sizes, recipe, 2, 2 * sizes.layer, processes)
    whole = 2 * sum(every) if stage == 2 else shares(every, processes, 2) + 2 * max(every)
    assert states.weights == pytest.approx(whole, rel=0.01)
    assert states.optimizer == pytest.approx(shares(tuned, processes, 4 + 8), rel=0.01)
    assert states.gradients == pytest.approx(shares(tuned, processes, 2 + 4), rel=0.01)
    offloaded = recipe.model_copy(update={"offload": "optimizer"})
    on_host = memory.model_states(sizes, offloaded, 2, 2 * sizes.layer, processes)
    assert on_host.optimizer == 0 and on_host.weights == states.weights


def test_a_cache_is_that_of_a_real_prompt(model: tuple[Any, Sizes]) -> None:
    opened, sizes = model
    _, cache = first_token(opened, batch())
    assert memory.cache_token(sizes, 4) * ROWS * TOKENS == cache_bytes(cache)


def test_collect_keeps_each_layers_states_and_those_that_image_features_change(
    dense: nn.Module, dense_dir: Path
) -> None:
    with torch.inference_mode():
        inputs, outputs = STATES["residual"](dense, batch())
    distinct = {id(state): state.nbytes for state in (*inputs, *outputs)}
    predicted = memory.state_bytes(model_sizes(Checkpoint(dense_dir)), ROWS * TOKENS, 4)
    assert sum(distinct.values()) <= predicted < 1.5 * sum(distinct.values())


def test_gradient_checkpointing_keeps_a_layers_work_and_all_inputs() -> None:
    def states(checkpointing: Any, gib: float = 79) -> float:
        recipe = {"gradient_checkpointing": checkpointing, "micro_batch_size": 2}
        case = forecasts.setting(gib, finetune=recipe)
        return memory.training(case, case.pruned, case.params.finetune, "bfloat16").activations

    assert states(True) < states(False) / 5
    assert states("auto") == states(True)  # too long for half of what is free
    assert states("auto", gib=2000) == states(False)


def test_the_recorded_peak_of_collect_on_an_h100() -> None:
    """A decoder of the 8B's size with a small tower, in batches of 8,192 tokens."""
    case = forecasts.setting()
    decoder = replace(case.dense, total=8_191_000_000, taps=0)
    short = replace(case.rows, text=Spread(1024, 1024), prompt=Spread(1024, 1024))
    short = replace(short, images=Spread(0, 0))
    peak = memory.collecting(replace(case, dense=decoder, rows=short))
    assert (peak.weights + peak.activations) / GIB == pytest.approx(18.2, rel=0.03)
