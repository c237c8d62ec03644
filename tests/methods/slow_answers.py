"""Every method's choice, one step after another, from the papers' words and with no cleverness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from methods import slow_domain, slow_optimal

from interlace.scores.table import Scores


@dataclass
class Asked:
    """K, the layers that may go, the policy on running out, the weight of non-math, and the layers
    that are tuned already."""

    drops: int
    free: list[int]
    shortfall: str
    alpha: float = 0.7
    tuned: frozenset[int] = frozenset()


@dataclass
class Answer:
    """Layers in the order they go, and those tuned; or the largest K, where this one is refused."""

    drop: list[int]
    tune: set[int]
    refused_at: int | None = None


def of_layers(scores: Scores, criterion: str) -> dict[int, float]:
    return {i: scores.values[criterion, i, 1] for i in range(scores.n_layers)}


def greatest_first(values: dict[int, float], free: list[int]) -> Iterator[int]:
    """Layers by value, the lower one first among equals."""
    left = sorted(free)
    while left:
        best = left[0]
        for i in left:
            if values[i] > values[best]:
                best = i
        left.remove(best)
        yield best


def beside(drop: list[int], n_layers: int, tuned: frozenset[int]) -> set[int]:
    """In depth order, each dropped layer's nearest survivor behind it that is not taken yet; where
    none is, the nearest before it."""
    taken: set[int] = set()
    for layer in sorted(drop):
        places = [*range(layer + 1, n_layers), *range(layer - 1, -1, -1)]
        for place in places:
            if place not in drop and place not in taken and place not in tuned:
                taken.add(place)
                break
    return taken


def one_by_one(order: Iterator[int], asked: Asked, n_layers: int) -> Answer:
    """The first K of a ranking; K can be no greater than the layers that may go."""
    if asked.drops > len(asked.free) and asked.shortfall != "fewer":
        return Answer([], set(), refused_at=len(asked.free))
    drop = [i for i, _ in zip(order, range(asked.drops), strict=False)]
    return Answer(drop, beside(drop, n_layers, asked.tuned))


def grouped(
    asked: Asked, spans: list[tuple[int, dict[int, float]]], layer: dict[int, float]
) -> Answer:
    """Disjoint groups of one length after another, greatest score first; of a group's first two
    layers the more redundant goes and the other is tuned."""
    unassigned = set(asked.free)
    drop: list[int] = []
    tune: set[int] = set()
    for span, values in spans:
        for first in greatest_first(values, list(values)):
            group = set(range(first, first + span))
            if len(drop) == asked.drops or not group <= unassigned:
                continue
            unassigned -= group
            if layer[first] < layer[first + 1]:
                drop.append(first + 1)
                tune.add(first)
            else:
                drop.append(first)
                tune.add(first + 1)
    if len(drop) < asked.drops and asked.shortfall != "fewer":
        return Answer([], set(), refused_at=len(drop))
    return Answer(drop, tune)


def of_cosine(scores: Scores, span: int) -> dict[int, float]:
    starts = range(scores.n_layers - span + 1)
    return {first: scores.values["cosine", first, span] for first in starts}


def triplets_then_pairs(scores: Scores, asked: Asked) -> list[tuple[int, dict[int, float]]]:
    spans = [(3, of_cosine(scores, 3))]
    return [*spans, (2, of_cosine(scores, 2))] if asked.shortfall == "pairs" else spans


def interlace(scores: Scores, asked: Asked) -> Answer:
    return grouped(asked, triplets_then_pairs(scores, asked), of_cosine(scores, 1))


def interlace_oa(scores: Scores, asked: Asked) -> Answer:
    alike = dict.fromkeys(range(scores.n_layers), 0.0)  # of equals the first goes
    return grouped(asked, triplets_then_pairs(scores, asked), alike)


def interlace_tn(scores: Scores, asked: Asked) -> Answer:
    assigned: set[int] = set()
    drop, tune = [], set()
    for i in greatest_first(of_cosine(scores, 1), asked.free):
        if len(drop) == asked.drops:
            break
        if i not in assigned and i + 1 in asked.free and i + 1 not in assigned:
            drop.append(i)
            tune.add(i + 1)
            assigned |= {i, i + 1}
    if len(drop) < asked.drops and asked.shortfall != "fewer":
        return Answer([], set(), refused_at=len(drop))
    return Answer(drop, tune)


def interlace_pooled(scores: Scores, asked: Asked) -> Answer:
    layer = of_layers(scores, "pooled")
    last = scores.n_layers - 1
    triplet = {i: (layer[i] + layer[i + 1]) / 2 for i in range(last - 1)}
    pair = {i: (layer[i] + layer[i + 1]) / 2 for i in range(last)}
    spans = [(3, triplet), (2, pair)] if asked.shortfall == "pairs" else [(3, triplet)]
    return grouped(asked, spans, layer)


def interlace_optimal(scores: Scores, asked: Asked) -> Answer:
    triplet, pair, layer = of_cosine(scores, 3), of_cosine(scores, 2), of_cosine(scores, 1)
    groups = slow_optimal.best(triplet, pair, set(asked.free), asked.drops, asked.shortfall)
    if isinstance(groups, int):
        return Answer([], set(), refused_at=groups)
    roles = [(i + 1, i) if layer[i] < layer[i + 1] else (i, i + 1) for i, _ in groups]
    return Answer([dropped for dropped, _ in roles], {tuned for _, tuned in roles})


def consecutive(scores: Scores, asked: Asked) -> Answer:
    """The run of K that starts at the greatest S_1, moved down until it ends within the unprotected
    layers; tuned are the next K, or where there are fewer, those and the nearest before the run."""
    drops = min(asked.drops, len(asked.free))
    if drops < asked.drops and asked.shortfall != "fewer":
        return Answer([], set(), refused_at=drops)
    first = next(greatest_first(of_cosine(scores, 1), asked.free))
    while first + drops > asked.free[-1] + 1:
        first -= 1
    nearest = [*range(first + drops, scores.n_layers), *range(first - 1, -1, -1)]
    return Answer(list(range(first, first + drops)), set(nearest[:drops]))


def angular_block(scores: Scores, asked: Asked) -> Answer:
    drops = min(asked.drops, len(asked.free))
    blocks = [
        range(first, first + drops)
        for first in asked.free
        if all(i in asked.free for i in range(first, first + drops))
    ]
    if not blocks or (drops < asked.drops and asked.shortfall != "fewer"):
        return Answer([], set(), refused_at=longest_run(asked.free))
    best = blocks[0]
    for block in blocks:
        if scores.values["angular", block[0], drops] < scores.values["angular", best[0], drops]:
            best = block
    return Answer(list(best), beside(list(best), scores.n_layers, asked.tuned))


def longest_run(layers: list[int]) -> int:
    longest = length = 0
    for i in range(max(layers) + 1):
        length = length + 1 if i in layers else 0
        longest = max(longest, length)
    return longest


def dense_ft(scores: Scores, asked: Asked) -> Answer:
    return Answer([], set(range(scores.n_layers - asked.drops, scores.n_layers)))


def shortgpt(scores: Scores, asked: Asked) -> Answer:
    influence = {i: 1 - value for i, value in of_cosine(scores, 1).items()}
    least_first = greatest_first({i: -value for i, value in influence.items()}, asked.free)
    return one_by_one(least_first, asked, scores.n_layers)


def taylor(scores: Scores, asked: Asked) -> Answer:
    importance = of_layers(scores, "taylor")
    least_first = greatest_first({i: -value for i, value in importance.items()}, asked.free)
    return one_by_one(least_first, asked, scores.n_layers)


def sleb(scores: Scores, asked: Asked) -> Answer:
    order = [
        i
        for step in range(scores.n_layers)
        for i in asked.free
        if scores.values.get(("sleb", i, 1)) == step
    ]
    return one_by_one(iter(order), asked, scores.n_layers)


def by_criterion(criterion: str) -> Callable[[Scores, Asked], Answer]:
    def answer(scores: Scores, asked: Asked) -> Answer:
        order = greatest_first(of_layers(scores, criterion), asked.free)
        return one_by_one(order, asked, scores.n_layers)

    return answer


def mixed(scores: Scores, asked: Asked) -> Answer:
    math, nonmath = of_layers(scores, "cosine/math"), of_layers(scores, "cosine/nonmath")
    ranking = slow_domain.mixed_ranking(math, nonmath, asked.free, asked.alpha)
    return one_by_one(greatest_first(ranking, asked.free), asked, scores.n_layers)


ANSWERS: dict[str, Callable[[Scores, Asked], Answer]] = {
    "interlace": interlace,
    "interlace-optimal": interlace_optimal,
    "interlace-oa": interlace_oa,
    "interlace-tn": interlace_tn,
    "consecutive": consecutive,
    "dense-ft": dense_ft,
    "math-aware": by_criterion("cosine/math"),
    "nonmath-aware": by_criterion("cosine/nonmath"),
    "mixed": mixed,
    "cka": by_criterion("cka"),
    "interlace-pooled": interlace_pooled,
    "shortgpt": shortgpt,
    "angular-block": angular_block,
    "sleb": sleb,
    "taylor": taylor,
}
