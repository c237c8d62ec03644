"""Choosing layers exactly as the papers put it, one step after another, with no cleverness."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from interlace.scores.table import Scores


@dataclass
class Outcome:
    """What happens to each layer; `ran_out_at` is set where K drops are not to be had."""

    drop: list[int] = field(default_factory=list)
    tune: list[int] = field(default_factory=list)
    anchors: list[int] = field(default_factory=list)
    triplets: int = 0
    pairs: int = 0
    ran_out_at: int | None = None


def floor_of_share(ratio: str, n_layers: int) -> int:
    """K = floor(ratio * L), in exact arithmetic."""
    share = Fraction(ratio) * n_layers
    return share.numerator // share.denominator


def take_spans(
    outcome: Outcome,
    status: dict[int, str],
    scores: dict[int, float],
    layer: dict[int, float],
    span: int,
    drops: int,
) -> None:
    candidates = list(scores)
    while candidates and len(outcome.drop) < drops:
        best = candidates[0]
        for first in candidates:
            if scores[first] > scores[best] or (scores[first] == scores[best] and first < best):
                best = first
        candidates.remove(best)
        if any(status[best + offset] != "unassigned" for offset in range(span)):
            continue
        if layer[best] < layer[best + 1]:
            dropped, tuned = best + 1, best
        else:
            dropped, tuned = best, best + 1
        status[dropped], status[tuned] = "drop", "tune"
        outcome.drop.append(dropped)
        outcome.tune.append(tuned)
        if span == 3:
            status[best + 2] = "anchor"
            outcome.anchors.append(best + 2)
            outcome.triplets += 1
        else:
            outcome.pairs += 1


def interlace(
    scores: Scores, drops: int, protect_first: int, protect_last: int, shortfall: str
) -> Outcome:
    length = scores.n_layers
    status = {}
    for i in range(length):
        protected = i < protect_first or i >= length - protect_last
        status[i] = "protected" if protected else "unassigned"
    layer, pair, triplet = (
        {first: scores.values["cosine", first, span] for first in range(length - span + 1)}
        for span in (1, 2, 3)
    )
    outcome = Outcome()
    take_spans(outcome, status, triplet, layer, 3, drops)
    if shortfall == "pairs":
        take_spans(outcome, status, pair, layer, 2, drops)
    if len(outcome.drop) < drops and shortfall != "fewer":
        outcome.ran_out_at = len(outcome.drop)
    return outcome


def consecutive(
    scores: Scores, drops: int, protect_first: int, protect_last: int
) -> tuple[list[int], list[int]]:
    """The run of K that starts at the greatest S_1 (lowest index among equals), moved down until it
    ends within the unprotected layers; tuned are the next K, or where there are fewer, those and
    the nearest ones before the run."""
    length = scores.n_layers
    first = protect_first
    for i in range(protect_first, length - protect_last):
        if scores.values["cosine", i, 1] > scores.values["cosine", first, 1]:
            first = i
    while first + drops > length - protect_last:
        first -= 1
    drop = list(range(first, first + drops))
    tune = list(range(first + drops, length))[:drops]
    before = first - 1
    while len(tune) < drops and before >= 0:
        tune.append(before)
        before -= 1
    return drop, sorted(tune)


def random_scores(rng: np.random.Generator, n_layers: int, decimals: int) -> Scores:
    """Scores of every span of one to three layers; few decimals make many ties."""
    values = {}
    for span in (1, 2, 3):
        for first in range(n_layers - span + 1):
            values["cosine", first, span] = round(float(rng.random()), decimals)
    return Scores(n_layers=n_layers, deepstack_layers=0, values=values, provenance={})
