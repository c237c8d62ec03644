"""A budget becomes a number of layers, and says how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import answered_samples
import models
import pytest
import torch

from interlace.budget import answer_accuracy, decide, parameter_shares, retention_by_drops, speedups
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.model.bypass import bypassed, without
from interlace.params.timing import Ttft
from interlace.plan.record import Plan
from interlace.pruning.export import export_checkpoint
from interlace.scores.table import Scores
from interlace.selection.select import select

LAYERS = 6
EQUAL = Scores(LAYERS, 3, {("cosine", i, 1): i / 10 for i in range(LAYERS)}, {})


def plans(drops: int, protect_first: int = 0) -> Plan:
    return select(EQUAL, method="shortgpt", drops=drops, protect_first=protect_first)


SHARES = {0: 1.0, 1: 0.9, 2: 0.8, 3: 0.7}
SPEEDUPS = {0: 1.0, 1: 1.1, 2: 1.25, 3: 1.4}
RETENTIONS = {0: 100.0, 1: 99.0, 2: 94.0, 3: 96.0}


@pytest.mark.parametrize(
    ("budget", "values", "target", "drops"),
    [
        *(("params", SHARES, *case) for case in ((0.9, 1), (0.85, 2), (0.8, 2), (0.7, 3))),
        *(("ttft_speedup", SPEEDUPS, *case) for case in ((1.05, 1), (1.25, 2), (1.3, 3))),
        *(("retention", RETENTIONS, *case) for case in ((99.0, 1), (95.0, 1), (94.0, 3))),
    ],
)
def test_the_fewest_layers_reach_a_budget_and_the_most_retain_one(
    budget: str, values: dict[int, float], target: float, drops: int
) -> None:
    assert decide(budget, target, values, "x").drops == drops


@pytest.mark.parametrize(
    ("budget", "target", "values", "nearest"),
    [
        ("params", 0.5, SHARES, r"budget\.params = 0\.5 .* 3 of .* is 0\.7"),
        ("ttft_speedup", 2.0, SPEEDUPS, r"ttft_speedup = 2 .* 3 of .* is 1\.4"),
        ("retention", 99.5, RETENTIONS, r"retention = 99\.5 .* 1 of .* is 99"),
    ],
)
def test_a_budget_out_of_reach_names_the_nearest(
    budget: str, target: float, values: dict[int, float], nearest: str
) -> None:
    with pytest.raises(InputError, match=nearest):
        decide(budget, target, values, "x")


def test_the_plan_follows_the_decision_and_records_it() -> None:
    decision = decide("params", 0.85, SHARES, "counted")
    assert decision.reason == (
        "2 layers: the fewest layers that reach budget.params = 0.85, at 0.8 (counted)"
    )
    plan = select(EQUAL, method="shortgpt", ratio="auto", decision=decision, protect_first=0)
    assert (len(plan.drop), plan.decision) == (2, decision)
    assert plan.ratio == pytest.approx(2 / 6)
    fixed = select(EQUAL, method="shortgpt", ratio=0.17, decision=decision, protect_first=0)
    assert (len(fixed.drop), fixed.decision) == (1, None)


def test_auto_without_a_decision_is_refused() -> None:
    with pytest.raises(InputError, match="no budget was decided on"):
        select(EQUAL, method="shortgpt", ratio="auto")


def test_shares_are_those_of_the_exported_checkpoint(dense_dir: Path, tmp_path: Path) -> None:
    shares = parameter_shares(Checkpoint(dense_dir), plans)
    assert list(shares) == list(range(LAYERS))
    export_checkpoint(dense_dir, plans(2), tmp_path / "pruned")
    exported = Checkpoint(tmp_path / "pruned").parameters / Checkpoint(dense_dir).parameters
    assert shares[2] == pytest.approx(exported)


def test_only_feasible_numbers_of_layers_are_considered(dense_dir: Path) -> None:
    shares = parameter_shares(Checkpoint(dense_dir), lambda drops: plans(drops, protect_first=3))
    assert list(shares) == [0, 1, 2, 3]


def test_a_model_without_layers_shares_weights_and_answers_as_the_bypassed_one(
    dense: Any, processor: Any
) -> None:
    pruned = without(dense, [2, 4])
    assert (len(dense.get_decoder().layers), len(pruned.get_decoder().layers)) == (6, 4)
    weights = {parameter.data_ptr() for parameter in dense.parameters()}
    assert {parameter.data_ptr() for parameter in pruned.parameters()} <= weights
    (example,) = answered_samples.encoded(processor, 1)
    with bypassed(dense, [2, 4]):
        logits = answered_samples.logits(dense, example)
    assert torch.equal(logits, answered_samples.logits(pruned, example))


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_accuracy_counts_every_answer_token_once(
    dense: Any, processor: Any, batch_tokens: int, tmp_path: Path
) -> None:
    examples = answered_samples.encoded(processor, 6)
    examples[:3] = answered_samples.answered_by(dense, examples[:3])
    ranked_first: list[bool] = []
    for example in examples:
        tokens = answered_samples.logits(dense, example)[0].argmax(-1).tolist()
        pairs = zip(tokens, example["labels"].tolist()[1:], strict=False)
        ranked_first += [token == label for token, label in pairs if label >= 0]
    accuracy = answer_accuracy(dense, answered_samples.saved(examples, tmp_path, batch_tokens))
    assert 0 < accuracy < 1
    assert accuracy == pytest.approx(sum(ranked_first) / len(ranked_first))


def test_retention_stops_at_the_first_number_that_is_too_low(
    dense: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.8, 0.8, 0.76, 0.4, 0.8])
    monkeypatch.setattr("interlace.budget.answer_accuracy", lambda *_, **__: next(accuracies))
    values, _ = retention_by_drops(dense, answered_samples.saved([], tmp_path), plans, 90.0)
    assert values == pytest.approx({0: 100, 1: 100, 2: 95, 3: 50})


def test_speedups_lie_on_the_line_through_the_timing(
    dense: Any, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlace.budget.compare_models", lambda *_, **__: {"ttft_speedup": 1.5})
    values, origin = speedups(dense, processor, [], plans, params=Ttft(), seed=0)
    assert values[3] == pytest.approx(1.5)  # a third of the time saved by three layers
    assert values[1] == pytest.approx(1 / (1 - 1 / 9))
    assert origin == "timed with 3 of 6 layers gone, by a line for the others"


def test_speedups_are_timed_on_real_requests(dense: Any, processor: Any) -> None:
    ttft = Ttft(requests=1, repeats=2, warmup=0, max_interval=100)
    values, _ = speedups(dense, processor, models.rows(3)[1:], plans, params=ttft, seed=0)
    assert list(values) == list(range(LAYERS))
