"""The rules of the study on real weights fit maps and weights as a slow solver would."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import answered_samples
import numpy as np
import pytest
import torch

from interlace.model import states
from interlace.model.decoder import decoder_layers
from interlace.pruning import compensation
from interlace.pruning.compensation import HELD_OUT, Compensated, Repair, compensate, pruned
from interlace.pruning.least_squares import Sums
from interlace.samples.answered_rows import AnsweredRows
from studies import real_cosine
from studies.real_cosine import SEED, Tokens, cosine_distance, descend, nearest
from studies.real_rules import REPAIRS, RULES, AllTokens, SquaredMap, WithoutSinks, following

WIDTH, DROP, BEFORE = 4, (2, 4), (1, 3)  # dropped layers, and the kept ones before them


def tokens(seed: int, count: int = 60) -> Tokens:
    random = torch.Generator().manual_seed(seed)
    return Tokens(*(torch.randn(count, WIDTH, generator=random).double() for _ in range(3)))


def slow_distance(transform: Any, of: Tokens) -> float:
    distances = []
    for signal, rest, target in zip(of.signal, of.rest, of.target, strict=True):
        state = (np.array(signal) @ transform + np.array(rest)).tolist()
        dot = sum(a * b for a, b in zip(state, target.tolist(), strict=True))
        lengths = sum(a * a for a in state) * sum(b * b for b in target.tolist())
        distances.append(1 - dot / lengths**0.5)
    return sum(distances) / len(distances)


def test_the_distance_is_the_mean_over_tokens_of_one_minus_the_cosine() -> None:
    transform = tokens(1).signal[:WIDTH]
    expected = slow_distance(transform.numpy(), tokens(0))
    assert cosine_distance(transform, tokens(0)).item() == pytest.approx(expected)


def slow_descent(start: Any, of: Tokens, rate: float, steps: int) -> Any:
    """Adam with gradients by finite differences."""
    generator = torch.Generator().manual_seed(SEED)
    transform, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step in range(steps):
        numbers = torch.randint(len(of.target), (real_cosine.BATCH,), generator=generator)
        gradient = np.zeros_like(start)
        for place in np.ndindex(start.shape):
            change = np.zeros_like(start)
            change[place] = 1e-5
            higher, lower = (slow_distance(transform + s * change, of.at(numbers)) for s in (1, -1))
            gradient[place] = (higher - lower) / 2e-5
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mean, square = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        transform -= rate * (1 - step / steps) * mean / (np.sqrt(square) + 1e-8)
    return transform


def test_the_descent_is_that_of_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_cosine, "BATCH", 8)
    start = tokens(1).signal[:WIDTH]
    slow = slow_descent(start.numpy(), tokens(0), rate=0.1, steps=4)
    np.testing.assert_allclose(descend(start, tokens(0), rate=0.1, steps=4), slow, atol=1e-5)


def test_the_descent_lowers_the_distance_to_less_than_the_least_squares_leave() -> None:
    of = tokens(0)
    least = torch.linalg.lstsq(of.signal, of.target - of.rest).solution
    map_ = descend(least, of, rate=0.01, steps=400)
    assert cosine_distance(map_, of) < 0.98 * cosine_distance(least, of)
    assert torch.equal(map_, descend(least, of, rate=0.01, steps=400))


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_map_is_the_identity_where_the_state_is_the_target_already(noise: float) -> None:
    of = tokens(0)
    of = replace(of, target=of.signal + of.rest)
    identity = torch.eye(WIDTH, dtype=torch.float64)
    map_ = descend(identity + noise * tokens(1).signal[:WIDTH], of, rate=0.01, steps=400)
    torch.testing.assert_close(map_, identity, atol=1e-3, rtol=0)


def test_the_rate_is_that_of_the_least_distance_on_heldout_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(real_cosine, "STEPS", 50)
    start, fitted, heldout = torch.eye(WIDTH).double(), tokens(0, 6), tokens(1)
    maps = {rate: descend(start, fitted, rate, 50) for rate in (1e-4, 1e-1)}
    assert cosine_distance(maps[1e-4], heldout) < cosine_distance(maps[1e-1], heldout)
    assert torch.equal(nearest(start, fitted, heldout, (1e-1, 1e-4)), maps[1e-4])
    assert torch.equal(nearest(start, fitted, fitted, (1e-1, 1e-4)), maps[1e-1])


@pytest.fixture(scope="module")
def rows(dense: Any, processor: Any, tmp_path_factory: pytest.TempPathFactory) -> AnsweredRows:
    examples = answered_samples.answered_by(dense, answered_samples.encoded(processor, 12))
    return answered_samples.saved(examples, tmp_path_factory.mktemp("rows"))


def fit(dense: Any, rule: str, rows: AnsweredRows, monkeypatch: pytest.MonkeyPatch) -> Compensated:
    """Compensate by a rule, each fit kept."""
    losses = iter(range(100, 0, -1))
    monkeypatch.setattr(Repair, "loss", lambda *_: float(next(losses)))
    monkeypatch.setattr(real_cosine, "STEPS", 100)
    with following(rule):
        return compensate(dense, DROP, rows)


@torch.inference_mode()
def before_the_first_cut(dense: Any, rows: AnsweredRows, weights: Any) -> Tokens:
    """All valid tokens before the first cut, from whole passes; with weights, M is the new one."""
    first = BEFORE[0]
    linear = decoder_layers(dense)[first].mlp.down_proj
    outputs: dict[None, torch.Tensor] = {}
    by_batch = []
    for number in range(len(rows.groups)):
        batch = rows.batch(number, dense.device)
        valid = batch["attention_mask"].bool()
        target = states.residual_states(dense, batch)[0][first + 2][valid]
        hook = {"on_return": lambda _, output: outputs.update({None: output})}
        with pruned(dense, DROP, weights), states.hooked({None: linear}, **hook):
            state = states.residual_states(dense, batch)[0][first + 1][valid]
        by_batch.append((outputs[None][valid], state - outputs[None][valid], target))
    return Tokens(*(torch.cat(group).double() for group in zip(*by_batch, strict=True)))


@pytest.mark.parametrize("rule", RULES[3:])
def test_layers_before_cuts_alone_are_fitted(
    dense: Any, rows: AnsweredRows, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = fit(dense, rule, rows, monkeypatch)
    fitted = {decoder_layers(dense)[layer].mlp.down_proj.weight for layer in BEFORE}
    assert result.weights.keys() == fitted
    assert [report.reason for report in result.reports if not report.cut] == [
        "no layer is dropped after it"
    ]


@pytest.mark.parametrize("rule", ["map by inverse norm", "map before cuts"])
def test_a_map_is_that_of_a_slow_solver(
    dense: Any, rows: AnsweredRows, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = fit(dense, rule, rows, monkeypatch)
    of = before_the_first_cut(dense, rows.split(HELD_OUT)[0], {})
    length = 1.0 if rule == "map before cuts" else of.target.norm(dim=-1, keepdim=True)
    signal, error = of.signal / length, (of.target - of.signal - of.rest) / length
    ridge = result.reports[0].ridge or 0.0
    gram = signal.mT @ signal
    identity = torch.eye(len(gram)).double()
    regular = gram + ridge * gram.trace() / len(gram) * identity
    map_ = identity + torch.linalg.inv(regular) @ signal.mT @ error
    weight = decoder_layers(dense)[BEFORE[0]].mlp.down_proj.weight
    expected = map_.mT @ weight.detach().double()
    torch.testing.assert_close(result.weights[weight].double(), expected, atol=1e-4, rtol=1e-3)
    assert (expected - weight).abs().max() > 2e-3


def test_the_cosine_map_turns_states_nearer_than_the_one_by_relative_errors(
    dense: Any, rows: AnsweredRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = rows.split(HELD_OUT)[0]
    identity = torch.eye(before_the_first_cut(dense, fitted, {}).signal.shape[1]).double()
    plain, squared, cosine = (
        cosine_distance(identity, before_the_first_cut(dense, fitted, weights)).item()
        for weights in (
            {},
            fit(dense, "map by inverse norm", rows, monkeypatch).weights,
            fit(dense, "cosine", rows, monkeypatch).weights,
        )
    )
    assert cosine < squared < plain


def test_a_rule_of_compensation_holds_in_its_block_alone() -> None:
    assert REPAIRS[RULES[0]] is compensation.Repair  # the library's own
    with pytest.raises(KeyboardInterrupt), following("map before cuts"):
        assert compensation.Repair is SquaredMap
        raise KeyboardInterrupt
    assert compensation.Repair is Repair and Repair.sums_type is Sums


def test_sums_without_sinks_skip_massive_tokens() -> None:
    state = torch.ones(5, 2)
    target = torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, 1.0], [1.0, 1.0], [300.0, 0.0]])
    signal = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    every, some, rest = (kind.of_size(3, 2) for kind in (AllTokens, WithoutSinks, AllTokens))
    every.add(signal, state, target)
    some.add(signal, state, target)
    rest.add(signal[:4], state[:4], target[:4])
    assert some.tokens == 4 < every.tokens
    assert torch.equal(some.gram, rest.gram) and torch.equal(some.cross, rest.cross)
    assert every.error == pytest.approx((target - state).square().sum().item())
