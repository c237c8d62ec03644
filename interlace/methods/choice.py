"""The contract of a method: a request for K layers, and the choice that answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from interlace.errors import InputError
from interlace.params.choosing import Base, Select
from interlace.plan.record import Group, Sparsity
from interlace.scores.table import NATIVE, Scores

Periods = Literal["run", "span", "sum", "named"]


@dataclass(frozen=True)
class Request:
    """A request for K layers.

    Attributes:
        drops: K, layers to remove.
        free: layers that may be grouped and removed; the others are protected.
        options: how layers are chosen; protection and rounds are applied already.
        seed: of methods that draw.
        tuned_before: layers that an earlier round tunes already.
    """

    drops: int
    free: frozenset[int]
    options: Select
    seed: int = 0
    tuned_before: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Choice:
    """The layers that a method chooses.

    Attributes:
        groups: all groups it decided on, in the order of decision.
        drop: the removed layers.
        tune: the layers to fine-tune.
        spared: the layers that make or end a massive activation in the model of a later round.
    """

    groups: tuple[Group, ...]
    drop: frozenset[int]
    tune: frozenset[int]
    spared: frozenset[int] = frozenset()

    @classmethod
    def of_groups(cls, groups: Iterable[Group]) -> Choice:
        """Add up a list of groups."""
        groups = tuple(groups)
        return cls(
            groups=groups,
            drop=frozenset(layer for group in groups for layer in group.drop),
            tune=frozenset(layer for group in groups for layer in group.tune),
        )

    @classmethod
    def of_ranking(
        cls, order: list[int], values: dict[int, float], scores: Scores, request: Request
    ) -> Choice:
        """Drop the first K layers of a ranking, each on its own; tune as many neighbours.

        Args:
            order: free layers with a score, the first to go first.
            values: the value that each layer was ranked by, for display.
            scores: the table the ranking was made from.
            request: K, and what to do when there are fewer layers.

        Raises:
            InputError: fewer than K layers are ranked, and the policy is not `fewer`.
        """
        drop = order[: attainable(request, len(order))]
        groups = [Group(kind="layer", layers=(i,), score=values[i], drop=(i,)) for i in drop]
        tune = neighbours(drop, scores.n_layers, request.tuned_before)
        return cls(groups=tuple(groups), drop=frozenset(drop), tune=tune)


@dataclass(frozen=True)
class Method:
    """A way to choose layers, and its paper's own rules.

    Attributes:
        choose: the rule, from a table of scores and a request to a choice.
        needs: criteria it reads from the table.
        protect_first: leading layers that its paper never drops.
        protect_last: trailing layers that its paper never drops.
        base: the layers that its paper's ratio is a share of: all, or those not protected.
        removes: whether it drops layers at all.
        sparsity: which weights it zeroes, of a method that drops and tunes nothing.
        lowest_first: whether the lowest scores of its groups are the best, not the greatest.
        spares_sinks: whether `protect: auto` spares the layers that make or end a massive
            activation: not where removals themselves are measured, or a person decides.
        periods: how it drops whole periods with `select.period: keep`; `run`: its one run of layers
            is some of them; `span`: by the measured change over each; `sum`: by the sum over its
            layers; `named`: a person names them; None: not at all.
    """

    choose: Callable[[Scores, Request], Choice]
    needs: tuple[str, ...] = (NATIVE,)
    protect_first: int = 0
    protect_last: int = 0
    base: Base = "all"
    removes: bool = True
    sparsity: Sparsity | None = None
    lowest_first: bool = False
    spares_sinks: bool = True
    periods: Periods | None = None


def attainable(
    request: Request, most: int, limit: str = "only {} layers that may go have a score"
) -> int:
    """Return how many layers can go where the method can choose among `most` of them.

    Args:
        request: K, and what to do when there are fewer layers.
        most: layers that the method can drop.
        limit: says so in the message, with `{}` for that number.

    Raises:
        InputError: `most` is less than K, and the policy is not `fewer`.
    """
    if request.drops > most and request.options.shortfall != "fewer":
        raise InputError(
            f"{request.drops} layers cannot be dropped: {limit.format(most)} (the largest feasible"
            f" K is {most}); lower ratio, protect fewer layers, or set select.shortfall to fewer"
        )
    return min(request.drops, most)


def neighbours(
    drop: Iterable[int], n_layers: int, tuned_before: frozenset[int] = frozenset()
) -> frozenset[int]:
    """Find a survivor for each dropped layer: the nearest free one after it, else before it.

    For methods whose papers name none, so that each tunes as many layers as it drops, as in
    INTERLACE's ablations (arXiv 2511.19676, table 5).

    Args:
        drop: the removed layers.
        n_layers: of the decoder they are removed from.
        tuned_before: layers that are tuned anyway, and count for no other.
    """
    dropped = set(drop)
    survivors = [i for i in range(n_layers) if i not in dropped | tuned_before]
    tune: set[int] = set()
    for layer in sorted(dropped):
        if survivors:
            neighbour = next((i for i in survivors if i > layer), survivors[-1])
            tune.add(neighbour)
            survivors.remove(neighbour)
    return frozenset(tune)
