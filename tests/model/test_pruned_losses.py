"""Losses of pruned models that share states, against full passes of really pruned models."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import family_models
import models
import pytest
import torch
from answered_samples import loss_of_pruned, snapshot
from hypothesis import given
from hypothesis import strategies as st

from interlace.model.answer_loss import answer_loss
from interlace.model.bypass import bypassed
from interlace.model.chat import Inputs, collate, encode_training
from interlace.model.decoder import decoder_layers, deepstack_layers, norm_and_head
from interlace.model.open import open_model
from interlace.model.paths import layer_runs, survivors
from interlace.model.pruned_losses import SharedStates, losses_without
from interlace.model.states import hooked, skipped, state_before

LAYERS, DEEPSTACK = 6, 3
SETS = [drop for k in range(4) for drop in itertools.combinations(range(LAYERS), k)]


@pytest.fixture(scope="module")
def padded(processor: Any) -> Inputs:
    """Six rows of different length, with none, one and two images, one and two answers."""
    rows = [encode_training(processor, row) for row in models.rows(6)]
    return collate(rows, pad_token_id=0)


@torch.inference_mode()
def loss_of_a_full_pass(model: Any, batch: Inputs, drop: tuple[int, ...]) -> float:
    with bypassed(model, drop):
        state = state_before(model, batch, norm_and_head(model)[0])
    return answer_loss(model, state, batch["labels"])


def test_losses_of_sets_have_the_bits_of_full_passes(dense: Any, padded: Inputs) -> None:
    original = snapshot(dense)
    losses = losses_without(dense, padded, SETS, DEEPSTACK)
    assert losses == [loss_of_a_full_pass(dense, padded, drop) for drop in SETS]
    assert snapshot(dense) == original
    assert not any("forward" in layer.__dict__ for layer in decoder_layers(dense))


def test_losses_of_sets_are_those_of_pruned_models(dense: Any, padded: Inputs) -> None:
    sets = [(4,), (1, 4), (3, 5), (0, 1, 5)]
    losses = losses_without(dense, padded, sets, DEEPSTACK)
    expected = [loss_of_pruned(dense, padded, list(drop)) for drop in sets]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert all(abs(a - b) > 1e-3 for i, a in enumerate(losses) for b in losses[:i])


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([(3,), (5,)], [0, 1, 2, 3, 4, 4, 5]),
        ([(4,), (3, 4), (4, 5), (4,)], [0, 1, 2, 3, 5, 5]),
        ([()], [0, 1, 2, 3, 4, 5]),
    ],
    ids=str,
)
def test_layers_of_a_shared_beginning_run_once(
    dense: Any, padded: Inputs, sets: list[tuple[int, ...]], expected: list[int]
) -> None:
    runs: list[int] = []

    def noting(layer: int, output: Any) -> None:
        runs.append(layer)

    attentions = {i: layer.self_attn for i, layer in enumerate(decoder_layers(dense))}
    with hooked(attentions, on_return=noting):
        losses_without(dense, padded, sets, DEEPSTACK)
    assert runs == expected
    assert layer_runs(LAYERS, sets) == len(runs)


def removal_runs(
    model: Any, batch: Inputs, states: SharedStates, free: range
) -> tuple[list[list[float]], list[int]]:
    """Losses of three removals, one after another, and the layers that ran for each."""
    removed: list[int] = []
    losses, runs = [], []
    for layer in (9, 5, 7):
        drops = [tuple(sorted([*removed, i])) for i in free if i not in removed]
        count = 0

        def counting(_: int, __: Any) -> None:
            nonlocal count
            count += 1

        attentions = {i: layer.self_attn for i, layer in enumerate(decoder_layers(model))}
        with hooked(attentions, on_return=counting):
            losses.append(losses_without(model, batch, drops, 0, states))
        runs.append(count)
        removed.append(layer)
        states.forget(layer)
    return losses, runs


@pytest.mark.parametrize("limit", [10**9, 40_000, 0])
def test_states_kept_between_removals_change_no_bit_and_save_layers(
    tmp_path: Path, limit: int
) -> None:
    model = open_model(models.tiny_llama(tmp_path, layers=12), dtype="float32")
    ids = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    states = SharedStates(limit)
    losses, runs = removal_runs(model, batch, states, range(1, 11))
    apart, runs_apart = removal_runs(model, batch, SharedStates(0), range(1, 11))
    assert losses == apart
    assert losses[0][0] == loss_of_a_full_pass(model, batch, (1,))
    assert runs[0] == runs_apart[0]
    if limit:
        assert sum(runs[1:]) < sum(runs_apart[1:])
        assert sum(state.nbytes for state in states.states.values()) < limit
        assert not any({9, 5, 7} & {*beginning} for beginning in states.states)
    else:
        assert runs == runs_apart and not states.states


@given(st.sets(st.sampled_from(SETS), min_size=1))
def test_each_prefix_of_kept_layers_counts_once(sets: set[tuple[int, ...]]) -> None:
    paths = [survivors(LAYERS, drop) for drop in sets]
    prefixes = {path[: n + 1] for path in paths for n in range(len(path))}
    assert layer_runs(LAYERS, list(sets)) == len(prefixes)


def test_layers_keep_their_own_masks(tmp_path: Path) -> None:
    model = open_model(family_models.save("qwen2_5_vl", tmp_path / "model"), dtype="float32")
    batch = collate(family_models.samples("qwen2_5_vl")[:1], pad_token_id=2)
    kinds = list(model.config.text_config.layer_types)
    sets = [(layer,) for layer in range(LAYERS)]
    losses = losses_without(model, batch, sets, 0)
    expected = [loss_of_pruned(model, batch, [layer]) for layer in range(LAYERS)]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert model.config.text_config.layer_types == kinds


@pytest.mark.slow
@pytest.mark.parametrize("family", family_models.TINY)
def test_every_family_gives_the_bits_of_full_passes(family: str, tmp_path: Path) -> None:
    model = open_model(family_models.save(family, tmp_path / "model"), dtype="float32")
    batch = collate(family_models.samples(family)[:1], pad_token_id=2)
    batch.setdefault("labels", batch["input_ids"])
    sets = [(4,), (3, 5), (5,), (0, 2)]
    losses = losses_without(model, batch, sets, deepstack_layers(model))
    assert losses == [loss_of_a_full_pass(model, batch, drop) for drop in sets]


def test_a_skipped_layer_is_restored_after_an_error(dense: Any, padded: Inputs) -> None:
    layers = decoder_layers(dense)
    wrapper = layers[2].forward
    layers[2].forward = wrapper  # as a wrapper of one module does
    try:
        with pytest.raises(RuntimeError), skipped(layers[1:]):
            assert layers[1](padded["input_ids"]) is padded["input_ids"]
            raise RuntimeError
        assert "forward" not in layers[1].__dict__
        assert layers[2].__dict__["forward"] is wrapper
    finally:
        del layers[2].forward
