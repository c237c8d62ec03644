"""Survivors learn their segment of the dense decoder, and nothing else moves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from interruptions import damage, interrupt
from plans import PLAN, PREFIX, make_plan, weights
from safetensors.torch import load_file
from torch import nn
from training_runs import (
    LOCAL_ONLY,
    LOCAL_STEPS,
    assert_same_run,
    column,
    curve,
    moved_weights,
    tune,
)

from interlace.errors import ContractError, InputError
from interlace.healing import heal
from interlace.healing.local import LocalHealing, run_segment, squared_errors
from interlace.healing.local_layers import LocalSegment
from interlace.healing.local_targets import pair, recorded_for, segment_targets
from interlace.model import chat
from interlace.model.bypass import bypassed
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model
from interlace.model.states import forward, hooked, residual_states
from interlace.plan.record import Group, Plan
from interlace.plan.segments import segments
from interlace.pruning.export import export_checkpoint


@pytest.fixture(scope="module")
def batch(processor: Any) -> chat.Inputs:
    rows = [chat.encode_training(processor, row) for row in models.rows(4)]
    return chat.collate(rows, pad_token_id=0)


def deepstack_plan(drop: list[int], tune: list[int]) -> Plan:
    return make_plan(drop, tune).model_copy(update={"deepstack_layers": 3})


def test_the_error_of_every_segment_falls(healed_run: Path) -> None:
    points = curve(healed_run / "local.csv")
    columns = [name for name in points[0] if name.startswith("layer_")]
    assert list(points[0]) == ["step", "relative_error", "learning_rate", *columns]
    assert len(columns) == len(segments(PLAN))
    assert all(points[-1][name] < points[0][name] for name in columns)
    assert [point["step"] for point in points] == list(range(1, LOCAL_STEPS + 1))
    for point in points:
        mean = sum(point[name] for name in columns) / len(columns)
        assert point["relative_error"] == pytest.approx(mean)
        assert point["learning_rate"] > 0  # no update is wasted


def test_only_survivors_move(project: Path, healed_run: Path) -> None:
    pruned = project / "artifacts/pruned"
    positions = [PLAN.keep.index(layer) for s in segments(PLAN) for layer in s.survivors]
    prefixes = tuple(f"{PREFIX}.{position}." for position in positions)
    expected = {name for name in weights(pruned) if name.startswith(prefixes)}
    assert moved_weights(pruned, healed_run / "tuned") == expected


def test_end_to_end_training_starts_from_healed_layers(
    project: Path, healed_run: Path, tmp_path: Path
) -> None:
    tune(project, tmp_path, local_steps=LOCAL_STEPS, max_steps=1, learning_rate=1e-12)
    tensors = weights(tmp_path / "tuned")
    assert len(curve(tmp_path / "loss.csv")) == 1
    for name, expected in weights(healed_run / "tuned").items():
        torch.testing.assert_close(tensors[name], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("owner", "name", "call", "resumed_calls"),
    [(LocalHealing, "update", 6, LOCAL_STEPS - 4), (heal, "finetune", 1, 1)],
)
def test_an_interrupted_run_resumes_to_the_same_weights_and_curve(
    project: Path,
    healed_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    call: int,
    resumed_calls: int,
) -> None:
    calls = interrupt(monkeypatch, owner, call, name)
    with pytest.raises(KeyboardInterrupt):
        tune(project, tmp_path, **LOCAL_ONLY)
    assert not (tmp_path / "tuned").exists()
    (tmp_path / "local.csv").unlink(missing_ok=True)  # as DVC does before it runs the stage again
    tune(project, tmp_path, **LOCAL_ONLY)
    assert len(calls) == call + resumed_calls  # it did not start over
    assert_same_run(tmp_path, healed_run)


def test_damaged_work_is_done_again(
    project: Path, healed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, heal, 1, "finetune")
        with pytest.raises(KeyboardInterrupt):
            tune(project, tmp_path, **LOCAL_ONLY)
    damage(tmp_path / "scratch")
    tune(project, tmp_path, **LOCAL_ONLY)
    assert_same_run(tmp_path, healed_run)


def test_passes_of_any_size_give_one_update(
    project: Path, healed_run: Path, tmp_path: Path
) -> None:
    tune(project, tmp_path, micro_batch_size=4, **LOCAL_ONLY)
    expected = column(healed_run / "local.csv", "relative_error")
    assert column(tmp_path / "local.csv", "relative_error") == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("drop", "tune", "restored"),
    [
        ([4], [3], True),
        ([2], [3], True),  # the last features enter after the survivor
        ([2, 4], [3, 5], True),
        ([1, 2], [3, 4], True),  # features enter between the survivors of one segment
        ([0, 3], [1, 2], False),  # frozen layers get features elsewhere
    ],
)
def test_survivors_that_meet_their_targets_lead_to_one_another(
    dense: Any, batch: chat.Inputs, drop: list[int], tune: list[int], restored: bool
) -> None:
    plan = deepstack_plan(drop, tune)
    targets = segment_targets(plan, by_position=True)
    with torch.no_grad(), recorded_for(targets, dense) as states:
        dense_inputs, _ = residual_states(dense, batch)
        pairs = {target.positions: pair(target, states) for target in targets}
    goals = {positions[-1]: goal for positions, (_, goal) in pairs.items()}
    with torch.no_grad(), bypassed(dense, drop):
        survivors = {position: decoder_layers(dense)[position] for position in goals}
        with hooked(survivors, on_return=lambda position, _: goals[position]):
            inputs, _ = residual_states(dense, batch)
    assert len(states.inputs) < len(dense_inputs)  # only those needed are in memory
    for positions, (start, _) in pairs.items():
        torch.testing.assert_close(inputs[positions[0]], start, rtol=1e-4, atol=1e-4)
    for layer in plan.freeze if restored else ():
        position = plan.keep.index(layer)
        torch.testing.assert_close(inputs[position], dense_inputs[layer], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("drop", "tune"), [([1, 2], [3, 4]), ([3, 4], [1, 2]), ([2], [1, 3])])
def test_survivors_of_a_segment_run_in_order_as_in_the_pruned_model(
    dense: Any, batch: chat.Inputs, drop: list[int], tune: list[int]
) -> None:
    groups = [Group(kind="pair", layers=(1, 2, 3), score=None, drop=(*drop,), tune=(*tune,))]
    plan = deepstack_plan(drop, tune).model_copy(update={"groups": groups})
    (target,) = segment_targets(plan, by_position=True)
    assert target.segment.survivors == (*tune,) and any(target.between)
    layers = nn.ModuleList(decoder_layers(dense)[layer] for layer in tune)
    segment = LocalSegment(target, layers, torch.optim.AdamW(layers.parameters()))
    with torch.no_grad(), recorded_for([target], dense) as states:
        forward(dense, batch)
        output = run_segment(segment, pair(target, states)[0], states)
    with torch.no_grad(), bypassed(dense, drop):
        _, expected = residual_states(dense, batch)
    torch.testing.assert_close(output, expected[target.positions[-1]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("survivor", "input_signs", "target_signs"), [(1, {}, {2: -1}), (3, {3: 1}, {})]
)
def test_features_that_move_with_the_layers_enter_once(
    survivor: int, input_signs: dict[int, int], target_signs: dict[int, int]
) -> None:
    (target,) = segment_targets(deepstack_plan([2], [survivor]), by_position=False)
    assert (target.input_signs, target.target_signs) == (input_signs, target_signs)


def test_errors_are_those_of_valid_tokens_relative_to_the_length_of_their_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    output, goal, start = torch.randn(3, 2, 5, 4, generator=generator)
    goal[0, 0] *= 1000  # an attention sink
    valid = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    tokens = [(0, 0), (0, 1), (0, 2), *((1, token) for token in range(5))]
    expected = [
        sum(float((state[at] - goal[at]).norm() / goal[at].norm()) ** 2 for at in tokens)
        for state in (output, start)
    ]
    assert squared_errors(output, goal, start, valid).tolist() == pytest.approx(expected)


def test_a_token_whose_target_is_long_outweighs_none() -> None:
    generator = torch.Generator().manual_seed(0)
    goal, start = torch.randn(2, 1, 50, 8, generator=generator)
    goal[0, 0] *= 1000
    goal[0, 1:] = start[0, 1:] * 2  # what a factor on the input can learn
    factor = torch.ones(1, requires_grad=True)
    optimizer, valid = torch.optim.Adam([factor], lr=0.05), torch.ones(1, 50, dtype=torch.bool)
    for _ in range(100):
        optimizer.zero_grad()
        squared_errors(factor * start, goal, start, valid)[0].backward()
        optimizer.step()
    assert factor.item() == pytest.approx(2, abs=0.05)


def test_a_dropped_layer_that_did_nothing_leaves_no_error(project: Path, tmp_path: Path) -> None:
    (layer, *_), dense = PLAN.drop, tmp_path / "dense"
    shutil.copytree(project / "dense", dense)
    model = open_model(dense)
    with torch.no_grad():
        for name, weight in decoder_layers(model)[layer].named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight.zero_()
    model.save_pretrained(dense)
    plan, pruned = deepstack_plan([layer], [layer + 1]), tmp_path / "pruned"
    export_checkpoint(dense, plan, pruned)
    tune(project, tmp_path, plan, dense=dense, pruned=pruned, local_steps=1, max_steps=0)
    assert column(tmp_path / "local.csv", "relative_error")[0] < 1e-8


def test_no_tuned_layer_beside_a_dropped_one_is_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"local_steps = 8.*no tuned layer.*select\.tuned"):
        tune(project, tmp_path, deepstack_plan([2], [5]), **LOCAL_ONLY)


def test_an_error_that_is_not_finite_names_its_layer_and_samples(
    project: Path, tmp_path: Path
) -> None:
    changes = LOCAL_ONLY | {"local_learning_rate": 4e9, "warmup_ratio": 0}
    with pytest.raises(ContractError, match=r"layer \d .* update 2.* \w{16},.* lower .*local_lear"):
        tune(project, tmp_path, **changes)


def test_weights_move_in_float32_where_the_model_runs_in_bfloat16(
    project: Path, tmp_path: Path
) -> None:
    tune(project, tmp_path, dtype="bfloat16", **LOCAL_ONLY | {"local_learning_rate": 1e-3})
    errors = column(tmp_path / "local.csv", "relative_error")
    assert errors[-1] < errors[0]
    tensors = load_file(tmp_path / "scratch/local/point-8/layer-0.safetensors")
    masters = [value for name, value in tensors.items() if name.endswith("weight")]
    assert all(value.dtype == torch.float32 for value in masters)
    assert any(not torch.equal(value, value.bfloat16().float()) for value in masters)
