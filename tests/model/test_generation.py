"""Sampling of tokens, against transformers' own bounds and vLLM's definition of the penalty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from interlace.model.generation import PresencePenalty, _Sampler
from interlace.model.sampling import GREEDY, PUBLISHED, Sampling, sampling_of

VOCABULARY = 40
GRID = 4000  # draws at equal distances: the share of a token is its probability within 1 / GRID


def logits(seed: int, rows: int = 1) -> Any:
    return 3 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def shares(sampling: Sampling, scores: Any) -> Any:
    """Probability of each token, by counting the choices of many evenly spaced draws."""
    draws = (torch.arange(GRID, dtype=torch.float64)[:, None] + 0.5) / GRID  # [GRID, 1]
    nothing = torch.zeros(GRID, 0, dtype=torch.long)
    chosen = _Sampler(draws, sampling, 0)(nothing, scores.expand(GRID, -1)).argmax(-1)
    return torch.bincount(chosen, minlength=VOCABULARY) / GRID


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0),
        Sampling(0.7),
        Sampling(1.5, top_k=5),
        Sampling(0.7, top_p=0.8),
        Sampling(2.0, top_p=0.6, top_k=7),
        Sampling(1.0, top_p=1e-6),
        PUBLISHED,
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_tokens_are_drawn_as_transformers_bounds_them(sampling: Sampling, seed: int) -> None:
    scores = logits(seed)
    expected = TemperatureLogitsWarper(sampling.temperature)(None, scores.double())
    if sampling.top_k:
        expected = TopKLogitsWarper(sampling.top_k)(None, expected)
    expected = TopPLogitsWarper(sampling.top_p)(None, expected).softmax(-1)[0]
    measured = shares(sampling, scores)
    assert torch.allclose(measured.double(), expected, atol=1.5 / GRID)
    assert ((measured > 0) <= (expected > 0)).all()


def test_a_token_that_the_answer_holds_loses_the_penalty_once() -> None:
    start, scores = 3, logits(0, rows=4)
    tokens = torch.tensor([[5, 6, 7], [5, 5, 5], [1, 2, 1], [0, 0, 39]])
    ids = torch.cat([torch.tensor([[8, 9, 10]] * 4), tokens], dim=1)  # a prompt of 3 tokens
    expected = scores.clone()
    for row, answer in enumerate(tokens.tolist()):
        for token in set(answer):  # vLLM: a mask of tokens in the output, not of the prompt
            expected[row, token] -= 1.5
    assert torch.equal(PresencePenalty(1.5, start)(ids, scores), expected)
    assert torch.equal(PresencePenalty(1.5, start)(ids[:, :start], scores), scores)


def test_a_request_s_settings_say_how_tokens_are_chosen() -> None:
    settings = {"max_new_tokens": 9, "until": [], "seed": 4}
    assert sampling_of(settings) == GREEDY == Sampling(0.0, 1.0, 0, 0.0)
    assert sampling_of(settings | PUBLISHED.as_settings()) == PUBLISHED
    assert Sampling(temperature=0.7, top_p=0.8, top_k=20, presence_penalty=1.5) == PUBLISHED


def test_draws_of_a_seed_do_not_depend_on_the_longest_answer() -> None:
    first, second = (np.random.default_rng(7).random(n) for n in (5, 50))
    assert np.array_equal(first, second[:5])
