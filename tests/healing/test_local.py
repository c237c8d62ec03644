"""Survivors learn what their segment of the dense decoder does, and nothing else moves."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from healing.test_finetune import RECIPE, project, weights
from interruptions import interrupt
from pruning.test_export import PLAN, PREFIX
from safetensors.torch import load_file
from torch import Tensor, nn

import interlace
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import ContractError, InputError
from interlace.healing import local as local_healing
from interlace.healing.heal import heal
from interlace.healing.local import in_order, share_of_peak, squared_errors
from interlace.healing.local_layers import Repair
from interlace.healing.local_targets import pair, recorded_for, tasks
from interlace.model import chat
from interlace.model.bypass import bypassed
from interlace.model.decoder import decoder_layers
from interlace.model.states import forward, hooked, residual_states
from interlace.params.healing import Finetune
from interlace.plan.record import Group, Plan
from interlace.plan.segments import segments

__all__ = ["project"]  # a fixture
ROOT = Path(__file__).parents[2]
STEPS = 8
LOCAL: dict[str, Any] = RECIPE | {
    "local_steps": STEPS,
    "local_learning_rate": 3e-3,
    "max_steps": 0,
    "log_steps": 1,
}


def healed(
    project: Path, dense_dir: Path, out: Path, plan: Plan = PLAN, **changes: Any
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Heal in this process; returns the weights and the local curve."""
    heal(
        Checkpoint(dense_dir),
        Checkpoint(changes.pop("pruned", project / "artifacts/pruned")),
        project / "data/train",
        out / "tuned",
        (out / "local.csv", out / "loss.csv"),
        plan=plan,
        params=Finetune(**(LOCAL | changes)),
        seed=0,
        scratch=out / "scratch",
    )
    return weights(out / "tuned"), curve(out / "local.csv")


def curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def uninterrupted(project: Path, dense_dir: Path, tmp_path_factory: Any) -> Path:
    out: Path = tmp_path_factory.mktemp("healed")
    healed(project, dense_dir, out)
    return out


@pytest.fixture(scope="module")
def batch(processor: Any) -> chat.Inputs:
    rows = [chat.encode_training(processor, row) for row in models.rows(4)]
    return chat.collate(rows, pad_token_id=0)


def plan_without(drop: list[int], tune: list[int]) -> Plan:
    given = {"drop": drop, "tune": tune, "groups": [], "protected": [], "deepstack_layers": 3}
    given["freeze"] = [i for i in range(6) if i not in (*drop, *tune)]
    return PLAN.model_copy(update=given)


def test_the_error_of_every_segment_falls(uninterrupted: Path) -> None:
    points = curve(uninterrupted / "local.csv")
    layers = [name for name in points[0] if name.startswith("layer_")]
    assert len(layers) == len(segments(PLAN))
    assert all(points[-1][name] < points[0][name] for name in layers)
    assert [point["step"] for point in points] == list(range(1, STEPS + 1))
    for point in points:
        mean = sum(point[name] for name in layers) / len(layers)
        assert point["relative_error"] == pytest.approx(mean)


def test_only_survivors_move(project: Path, uninterrupted: Path) -> None:
    before, after = weights(project / "artifacts/pruned"), weights(uninterrupted / "tuned")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    positions = [PLAN.keep.index(layer) for s in segments(PLAN) for layer in s.survivors]
    assert moved == {n for n in before if n.startswith(tuple(f"{PREFIX}.{p}." for p in positions))}


def test_without_end_to_end_training_its_curve_is_empty(uninterrupted: Path) -> None:
    assert curve(uninterrupted / "loss.csv") == []


def test_end_to_end_training_starts_from_healed_layers(
    project: Path, dense_dir: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    tensors, _ = healed(project, dense_dir, tmp_path, max_steps=1, learning_rate=1e-12)
    expected = weights(uninterrupted / "tuned")
    for name in expected:
        torch.testing.assert_close(tensors[name], expected[name], rtol=0, atol=1e-9)
    assert len(curve(tmp_path / "loss.csv")) == 1


def test_a_run_killed_after_local_healing_still_writes_its_curve(
    project: Path, dense_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("interlace.healing.finetune.finetune", killed)
        with pytest.raises(KeyboardInterrupt):
            healed(project, dense_dir, tmp_path, local_steps=2)
    before = (tmp_path / "local.csv").read_text()
    (tmp_path / "local.csv").unlink()  # as DVC does before it runs the stage again
    healed(project, dense_dir, tmp_path, local_steps=2)
    assert (tmp_path / "local.csv").read_text() == before


def test_passes_of_any_size_give_one_update(
    project: Path, dense_dir: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    _, points = healed(project, dense_dir, tmp_path, micro_batch_size=4)
    for found, expected in zip(points, curve(uninterrupted / "local.csv"), strict=True):
        assert found == pytest.approx(expected, rel=1e-3)


def test_a_pair_is_the_dense_input_and_output_of_its_segment(
    dense: Any, batch: chat.Inputs
) -> None:
    plan = plan_without(drop=[4], tune=[3])
    (job,) = tasks(plan, by_position=True)
    with torch.no_grad(), recorded_for([job], dense) as states:
        inputs, outputs = residual_states(dense, batch)
    slow = inputs[3], outputs[4]
    assert all(torch.equal(a, b) for a, b in zip(pair(job, states), slow, strict=True))
    assert set(states.inputs) == {3} and set(states.outputs) == {4}  # and no other is kept


@pytest.mark.parametrize(
    ("drop", "tune", "restored"),
    [
        ([4], [3], True),
        ([2], [3], True),  # the last features enter behind the survivor
        ([2, 3], [4], True),
        ([2, 4], [3, 5], True),
        ([1, 2], [3, 4], True),  # features enter between the survivors of one segment
        ([0, 3], [1, 2], False),  # frozen layers meet features at other places
        ([1, 3], [2, 4], False),
    ],
)
def test_survivors_that_meet_their_targets_lead_to_one_another(
    dense: Any, batch: chat.Inputs, drop: list[int], tune: list[int], restored: bool
) -> None:
    jobs = tasks(plan := plan_without(drop, tune), by_position=True)
    with torch.no_grad(), recorded_for(jobs, dense) as states:
        expected, _ = residual_states(dense, batch)
        pairs = [(job, *pair(job, states)) for job in jobs]
    targets = {job.positions[-1]: target for job, _, target in pairs}
    with torch.no_grad(), bypassed(dense, drop):
        layers = decoder_layers(dense)
        survivors = {position: layers[position] for position in targets}
        with hooked(survivors, on_return=lambda position, _: targets[position]):
            found, _ = residual_states(dense, batch)
    for job, given, _ in pairs:
        torch.testing.assert_close(found[job.positions[0]], given, rtol=1e-4, atol=1e-4)
    if restored:
        for layer in plan.freeze:
            place = plan.keep.index(layer)
            torch.testing.assert_close(found[place], expected[layer], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("drop", "tune"), [([1, 2], [3, 4]), ([3, 4], [1, 2]), ([2], [1, 3])])
def test_survivors_of_a_segment_run_in_order_as_in_the_pruned_model(
    dense: Any, batch: chat.Inputs, drop: list[int], tune: list[int]
) -> None:
    groups = [Group(kind="pair", layers=(1, 2, 3), score=None, drop=(*drop,), tune=(*tune,))]
    plan = plan_without(drop, tune).model_copy(update={"groups": groups})
    (job,) = tasks(plan, by_position=True)
    assert job.segment.survivors == (*tune,) and any(job.between)
    layers = nn.ModuleList(decoder_layers(dense)[layer] for layer in tune)
    repair = Repair(job, layers, torch.optim.AdamW(layers.parameters()))
    with torch.no_grad(), recorded_for([job], dense) as states:
        forward(dense, batch)
    with torch.no_grad(), bypassed(dense, drop):
        _, slow = residual_states(dense, batch)
    with torch.no_grad():
        found = in_order(repair, pair(job, states)[0], states)
    torch.testing.assert_close(found, slow[job.positions[-1]], rtol=1e-4, atol=1e-4)


def test_features_that_move_with_the_layers_enter_once() -> None:
    plan = plan_without(drop=[2], tune=[1])
    (job,) = tasks(plan, by_position=False)  # features in front of 2 enter behind the survivor
    assert job.input_signs == {} and job.target_signs == {2: -1}
    plan = plan_without(drop=[2], tune=[3])
    (job,) = tasks(plan, by_position=False)
    assert job.input_signs == {3: 1} and job.target_signs == {}


def test_errors_are_those_of_valid_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    found, target, given = torch.randn(3, 2, 5, 4, generator=generator)
    valid = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    error = scale = 0.0
    for row in range(2):
        for token in range(5):
            if valid[row, token]:
                error += float((found[row, token] - target[row, token]).norm() ** 2)
                scale += float((target[row, token] - given[row, token]).norm() ** 2)
    assert squared_errors(found, target, given, valid).tolist() == pytest.approx([error, scale])


def test_a_run_that_is_exactly_one_layer_s_work_is_learnt_to_no_error(
    dense_dir: Path, project: Path, tmp_path: Path
) -> None:
    """The dropped layer does nothing, so the survivor is right from the start."""
    import transformers

    model = transformers.AutoModelForImageTextToText.from_pretrained(dense_dir)
    with torch.no_grad():
        for name, weight in decoder_layers(model)[PLAN.drop[0]].named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight.zero_()
    model.save_pretrained(tmp_path / "dense")
    plan = plan_without(drop=[PLAN.drop[0]], tune=[PLAN.drop[0] + 1])
    for path in dense_dir.iterdir():
        if path.name not in {p.name for p in (tmp_path / "dense").iterdir()}:
            (tmp_path / "dense" / path.name).write_bytes(path.read_bytes())
    interlace.export(tmp_path / "dense", plan, tmp_path / "pruned")
    _, points = healed(
        project, tmp_path / "dense", tmp_path, plan, pruned=tmp_path / "pruned", local_steps=1
    )
    assert points[0]["relative_error"] < 1e-8


def test_an_interrupted_run_goes_on_to_the_same_weights(
    project: Path,
    dense_dir: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = interrupt(monkeypatch, local_healing, 6)  # behind the resume point at 4
    with pytest.raises(KeyboardInterrupt):
        healed(project, dense_dir, tmp_path)
    assert not (tmp_path / "tuned").exists()
    shutil.copytree(tmp_path / "scratch/local/point-4", tmp_path / "scratch/local/point-5")
    broken = tmp_path / "scratch/local/point-5/layer-0.safetensors"  # passed over: one bit differs
    broken.write_bytes(broken.read_bytes()[:-1] + bytes([broken.read_bytes()[-1] ^ 1]))
    tensors, points = healed(project, dense_dir, tmp_path)
    assert len(calls) == 6 + STEPS - 4  # it did not start over
    assert points == curve(uninterrupted / "local.csv")
    expected = weights(uninterrupted / "tuned")
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_no_tuned_layer_beside_a_dropped_one_is_refused(
    project: Path, dense_dir: Path, tmp_path: Path
) -> None:
    plan = plan_without(drop=[2], tune=[5])
    with pytest.raises(InputError, match=r"heal.local_steps = 8: no tuned layer lies beside"):
        healed(project, dense_dir, tmp_path, plan)


def test_an_error_that_is_not_finite_names_its_layer(
    project: Path, dense_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ContractError, match=r"error of layer \d is not finite in update 2, with samples \w+,"
    ):
        healed(project, dense_dir, tmp_path, local_learning_rate=1e30, warmup_ratio=0)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [share_of_peak(step, 100, 0.03) for step in range(100)]
    assert rates[:3] == [0.25, 0.5, 0.75] and rates[3] == 1
    assert all(a > b for a, b in pairwise(rates[3:]))
    assert 0 < rates[-1] < 1e-3


def test_moments_and_weights_are_kept_without_pickle(uninterrupted: Path) -> None:
    points = sorted((uninterrupted / "scratch/local").glob("point-*"))
    assert [point.name for point in points] == ["point-6", "point-8"]
    kinds = {name.rpartition("/")[2] for name in load_file(points[0] / "layer-0.safetensors")}
    assert kinds == {"weight", "exp_avg", "exp_avg_sq", "step"}


def test_weights_move_in_float32_where_the_model_runs_in_bfloat16(
    project: Path, dense_dir: Path, tmp_path: Path
) -> None:
    _, points = healed(project, dense_dir, tmp_path, dtype="bfloat16", local_learning_rate=1e-3)
    assert points[-1]["relative_error"] < points[0]["relative_error"]
    tensors = load_file(next((tmp_path / "scratch/local").glob("point-8/layer-0.safetensors")))
    kept = [value for name, value in tensors.items() if name.endswith("weight")]
    assert all(value.dtype == torch.float32 for value in kept)
    assert any(not torch.equal(value, value.bfloat16().float()) for value in kept)


@pytest.mark.slow
def test_two_processes_heal_as_one(
    project: Path, dense_dir: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; sys.path += ['tests', 'data/demo']; from pathlib import Path;"
        "import healing.test_local as t;"
        f"t.healed(Path({str(project)!r}), Path({str(dense_dir)!r}), Path({str(tmp_path)!r}))"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [run.wait(timeout=300) for run in runs] == [0, 0]
    for found, expected in zip(
        curve(tmp_path / "local.csv"), curve(uninterrupted / "local.csv"), strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-3)
