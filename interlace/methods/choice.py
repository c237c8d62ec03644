"""What a method is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from interlace.scores import Scores

Policy = Literal["pairs", "fewer", "error"]


class Group(BaseModel):
    """Layers that were decided on together, and why.

    Attributes:
        kind: triplet, pair, run (neighbours) or layer (on its own).
        first: the first layer.
        span: how many layers.
        score: the score the group was taken for; missing where chance decided.
        layer_scores: `S_1` of its layers that decided the roles within it, in order.
        drop: layers that go.
        tune: layers that are fine-tuned in their stead.
        anchor: the layer kept frozen behind them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["triplet", "pair", "run", "layer"]
    first: int
    span: int
    score: float | None
    layer_scores: tuple[float, ...] = ()
    drop: tuple[int, ...]
    tune: tuple[int, ...] = ()
    anchor: int | None = None


@dataclass(frozen=True)
class Request:
    """What is asked of a method.

    Attributes:
        drops: K, layers to remove.
        free: layers that may be grouped and removed; the others are protected.
        shortfall: what to do when the method's own rule cannot reach K.
        seed: of methods that draw.
    """

    drops: int
    free: frozenset[int]
    shortfall: Policy = "pairs"
    seed: int = 0


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
    def of_groups(cls, groups: list[Group]) -> Choice:
        """The choice that a list of groups adds up to."""
        return cls(
            groups=tuple(groups),
            drop=frozenset(layer for group in groups for layer in group.drop),
            tune=frozenset(layer for group in groups for layer in group.tune),
        )


Method = Callable[[Scores, Request], Choice]
