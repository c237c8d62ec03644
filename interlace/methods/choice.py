"""What a method is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from interlace.errors import InputError
from interlace.plan.record import Base, Group, Policy, Sparsity
from interlace.scores.table import NATIVE, Scores


@dataclass(frozen=True)
class Request:
    """What is asked of a method.

    Attributes:
        drops: K, layers to remove.
        free: layers that may be grouped and removed; the others are protected.
        shortfall: what to do when the method's own rule cannot reach K.
        seed: of methods that draw.
        alpha: weight of the non-math ranking in `mixed`, in [0, 1].
        tuned: layers that an earlier round tunes already.
        given_drop: layers to drop, of a choice made by hand.
        given_tune: layers to tune, of a choice made by hand.
    """

    drops: int
    free: frozenset[int]
    shortfall: Policy = "pairs"
    seed: int = 0
    alpha: float = 0.7
    tuned: frozenset[int] = frozenset()
    given_drop: tuple[int, ...] = ()
    given_tune: tuple[int, ...] = ()


@dataclass(frozen=True)
class Choice:
    """What a method answers.

    Attributes:
        groups: every group it decided on, in the order of decision.
        drop: the removed layers.
        tune: the layers to fine-tune.
    """

    groups: tuple[Group, ...]
    drop: frozenset[int]
    tune: frozenset[int]

    @classmethod
    def of_groups(cls, groups: Iterable[Group]) -> Choice:
        """The choice that a list of groups adds up to."""
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
            order: unprotected layers, the first to go first.
            values: what each was ranked by, to be shown.
            scores: the table the ranking was made from.
            request: K, and what to do when there are fewer layers.

        Raises:
            InputError: fewer than K layers are ranked, and the policy is not to go on with fewer.
        """
        drop = order[: attainable(request)]
        if len(drop) < request.drops and request.shortfall != "fewer":
            raise InputError(
                f"{request.drops} layers cannot be dropped: only {len(drop)} unprotected ones were"
                f" scored (the largest feasible K is {len(drop)}); lower ratio or protect fewer"
            )
        groups = [Group(kind="layer", layers=(i,), score=values[i], drop=(i,)) for i in drop]
        tune = neighbours(drop, scores.n_layers, request.tuned)
        return cls(groups=tuple(groups), drop=frozenset(drop), tune=tune)


@dataclass(frozen=True)
class Method:
    """A way to choose layers, and its paper's own rules.

    Attributes:
        choose: the rule, from a table of scores and a request to a choice.
        needs: criteria it reads from the table.
        protect_first: leading layers that its paper never drops.
        protect_last: trailing layers that its paper never drops.
        base: what its paper's ratio is a share of: all layers, or those not protected.
        removes: whether it drops layers at all.
        sparsity: which weights it zeroes, of a method that drops and tunes nothing.
    """

    choose: Callable[[Scores, Request], Choice]
    needs: tuple[str, ...] = (NATIVE,)
    protect_first: int = 0
    protect_last: int = 0
    base: Base = "all"
    removes: bool = True
    sparsity: Sparsity | None = None


def attainable(request: Request) -> int:
    """How many layers a method that may drop any unprotected one can drop.

    Raises:
        InputError: fewer than K, and the policy is not to go on with fewer.
    """
    if request.drops > len(request.free) and request.shortfall != "fewer":
        raise InputError(
            f"{request.drops} layers cannot be dropped: only {len(request.free)} are not protected"
            f" (the largest feasible K is {len(request.free)}); lower ratio or protect fewer layers"
        )
    return min(request.drops, len(request.free))


def neighbours(
    drop: Iterable[int], n_layers: int, tuned: frozenset[int] = frozenset()
) -> frozenset[int]:
    """One survivor for each dropped layer: the nearest behind it not yet taken, else before it.

    For methods whose papers name none, so that each tunes as many layers as it drops, as in
    INTERLACE's ablations (arXiv 2511.19676, table 5).

    Args:
        drop: the removed layers.
        n_layers: of the decoder they are removed from.
        tuned: layers that are tuned anyway, and count for no other.
    """
    gone = set(drop)
    taken = set(tuned) - gone
    left = [i for i in range(n_layers) if i not in gone | taken]
    found: set[int] = set()
    for layer in sorted(gone):
        behind = [i for i in left if i > layer]
        if behind or left:
            found.add(chosen := behind[0] if behind else left[-1])
            left.remove(chosen)
    return frozenset(found)
