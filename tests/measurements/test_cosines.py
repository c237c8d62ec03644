"""Cosines of spans and sums of states, against the same numbers worked out slowly."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interlace.measurements import cosines as span_similarity
from interlace.measurements.cosines import last_tokens, spans_up_to, token_sums


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cosine(a: Tensor, b: Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    lengths = [math.sqrt(sum(x * x for x in v.tolist())) for v in (a, b)]
    return dot / (lengths[0] * lengths[1]) if all(lengths) else 0.0


def chain(layers: int, *shape: int) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of a decoder that adds something after its first layer only."""
    states = list(drawn(layers + 2, *shape))
    return [states[0], *states[2:-1]], [states[1], *states[3:]]  # y_0 is not x_1, y_1 is x_2, ...


@settings(max_examples=25, deadline=None)
@given(
    layers=st.integers(1, 4),
    rows=st.integers(1, 3),
    tokens=st.integers(1, 6),
    most=st.sampled_from([1, 40, 100, 2**20]),
    seed=st.integers(0, 9),
)
def test_sums_are_those_of_single_tokens(
    layers: int, rows: int, tokens: int, most: int, seed: int
) -> None:
    inputs, outputs = chain(layers, rows, tokens, 5)
    masks = drawn(2, rows, tokens, seed=seed) > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(span_similarity._CHUNK, "cpu", most)
        cosines, sums = token_sums(inputs, outputs, masks, pooled=True)
    assert sums is not None
    for b in range(rows):
        for m in range(2):
            counted = [t for t in range(tokens) if masks[m, b, t]]
            for i in range(layers):
                for j in range(layers):
                    slow = sum(cosine(inputs[i][b, t], outputs[j][b, t]) for t in counted)
                    assert cosines[b, m, i, j].item() == pytest.approx(slow, abs=1e-5)
        counted = [t for t in range(tokens) if masks[:, b, t].any()]
        for side, states in enumerate((inputs, outputs)):
            for i in range(layers):
                slow_sum = sum((states[i][b, t] for t in counted), torch.zeros(5))
                torch.testing.assert_close(sums[b, side, i].float(), slow_sum)


def test_states_are_summed_only_where_asked() -> None:
    inputs, outputs = chain(2, 1, 3, 4)
    assert token_sums(inputs, outputs, torch.ones(1, 1, 3).bool(), pooled=False)[1] is None


def test_a_tensor_that_is_output_and_next_input_is_read_once() -> None:
    inputs, outputs = chain(5, 1, 3, 4)
    states, x, y = span_similarity._distinct(inputs, outputs)
    assert len(states) == 5 + 2
    assert all(states[i] is state for i, state in zip(x, inputs, strict=True))
    assert all(states[i] is state for i, state in zip(y, outputs, strict=True))


def test_half_precision_states_are_measured_in_float32() -> None:
    state = drawn(1, 3, 64).bfloat16()
    cosines, _ = token_sums([state], [state], torch.ones(1, 1, 3).bool(), pooled=False)
    assert cosines.dtype == torch.float64
    assert cosines.item() == pytest.approx(3, abs=1e-6)


def test_many_tokens_add_up_without_loss() -> None:
    state = drawn(1, 1, 4).expand(1, 200_000, 4).contiguous()
    cosines, _ = token_sums([state], [state], torch.ones(1, 1, 200_000).bool(), pooled=False)
    assert cosines.item() / 200_000 == pytest.approx(1, abs=3e-7)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_what_lies_outside_of_the_masks_does_not_count(value: float) -> None:
    inputs, outputs = chain(3, 2, 4, 5)
    mask = torch.ones(1, 2, 4).bool()
    mask[0, 0, 3] = False
    expected = token_sums(inputs, outputs, mask, pooled=True)
    for state in (*inputs, *outputs):
        state[0, 3] = value
    found = token_sums(inputs, outputs, mask, pooled=True)
    for before, after in zip(expected, found, strict=True):
        assert before is not None and after is not None and torch.equal(before, after)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_state_that_is_not_finite_has_no_cosine(value: float) -> None:
    inputs, outputs = chain(3, 2, 4, 5)
    inputs[2][1, 0, 0] = value  # which is outputs[1], too
    cosines, _ = token_sums(inputs, outputs, torch.ones(1, 2, 4).bool(), pooled=False)
    assert cosines[1, 0].isnan().tolist() == [
        [j == 1 or i == 2 for j in range(3)] for i in range(3)
    ]


def test_a_state_of_zeros_has_cosine_zero() -> None:
    zero, other = torch.zeros(1, 1, 4), drawn(1, 1, 4)
    cosines, _ = token_sums([zero], [other], torch.ones(1, 1, 1).bool(), pooled=False)
    assert cosines.item() == 0


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 30))
def test_chunks_cover_a_batch_once(rows: int, tokens: int, most: int) -> None:
    seen = torch.zeros(rows, tokens)
    for r, t in span_similarity._chunks(rows, tokens, most):
        assert seen[r, t].numel() <= most
        seen[r, t] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("longest", [1, 3, 5, 6, None])
def test_every_span_is_listed_once_shorter_ones_first(longest: int | None) -> None:
    spans = [tuple(span) for span in spans_up_to(longest, 5).tolist()]
    most = min(longest or 5, 5)
    expected = [(i, p) for p in range(1, most + 1) for i in range(5 - p + 1)]
    assert spans == expected


def test_the_last_token_is_found_wherever_the_padding_lies() -> None:
    attended = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 0]]).bool()
    assert last_tokens(attended).int().tolist() == [
        [0, 1, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 1],
        [0, 1, 0, 0],
    ]
