"""Domain-aware choices, by similarity on math and non-math probes (arXiv 2603.20275)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from interlace.methods.choice import Choice, Request
from interlace.methods.interlace import greedy
from interlace.scores.table import CKA, MATH, NONMATH, POOLED, Scores


def standardised(values: Mapping[int, float]) -> dict[int, float]:
    """Return z-scores over these layers (eq. 8); 0 if all are equal."""
    array = np.array(list(values.values()))
    if len(set(values.values())) < 2 or not array.std():
        return dict.fromkeys(values, 0.0)
    return dict(zip(values, ((array - array.mean()) / array.std()).tolist(), strict=True))


def by_domain(scores: Scores, request: Request, alpha: float) -> Choice:
    """Drop the K greatest `R_l = alpha * Snon_l + (1 - alpha) * Smath_l` (eq. 9).

    Args:
        scores: similarity of each layer on either domain's probes (eq. 6, 7).
        request: K and the layers to standardise over: those not protected (eq. 8).
        alpha: weight of the non-math domain.
    """
    shares = {NONMATH: alpha, MATH: 1 - alpha}
    weighted = [
        (share, standardised(_free(scores.of_span(1, domain), request)))
        for domain, share in shares.items()
        if share  # a domain without weight need not be measured
    ]
    ranking = {  # rounded, so that ties do not depend on the order of additions
        i: round(sum(share * values[i] for share, values in weighted), 12) for i in weighted[0][1]
    }
    return _greatest(ranking, scores, request)


def _free(values: Mapping[int, float], request: Request) -> dict[int, float]:
    return {i: value for i, value in values.items() if i in request.free}


def _greatest(values: dict[int, float], scores: Scores, request: Request) -> Choice:
    order = sorted(values, key=lambda i: (-values[i], i))
    return Choice.of_ranking(order, values, scores, request)


def math_aware(scores: Scores, request: Request) -> Choice:
    """Drop the K layers that change math probes least."""
    return by_domain(scores, request, alpha=0.0)


def nonmath_aware(scores: Scores, request: Request) -> Choice:
    """Drop the K layers that change non-math probes least."""
    return by_domain(scores, request, alpha=1.0)


def mixed(scores: Scores, request: Request) -> Choice:
    """Drop the K layers that change both kinds of probes least, weighted by `alpha`."""
    return by_domain(scores, request, request.options.alpha)


def cka(scores: Scores, request: Request) -> Choice:
    """Drop the K layers whose outputs are most like those of the layer before, over the tasks."""
    return _greatest(_free(scores.of_span(1, CKA), request), scores, request)


def interlace_pooled(scores: Scores, request: Request) -> Choice:
    """INTERLACE on mean-pooled states: a triplet scores `(S_l + S_{l+1}) / 2`.

    Pairs, where triplets run out, score the same.
    """
    layer = scores.of_span(1, POOLED)
    ends = {span: [i for i in layer if i + span - 1 in layer] for span in (1, 2, 3)}

    def of_span(span: int) -> dict[int, float]:
        if span == 1:
            return layer
        return {i: (layer[i] + layer[i + 1]) / 2 for i in ends[span]}

    return greedy(of_span, request)
