"""The decision: which layers are dropped, tuned and frozen, and why.

All indices are 0-based positions in the dense decoder.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from interlace.errors import InputError, validation_message
from interlace.methods import Group, Request, named
from interlace.methods.choice import Policy
from interlace.scores import Scores, read_scores


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Shortfall(_Record):
    """How far the method's own rule went.

    Attributes:
        policy: what was to happen when it could not reach K.
        wanted: K.
        triplets: drops made by triplets.
        pairs: drops made by pairs.
        missing: drops not made.
    """

    policy: Policy
    wanted: int
    triplets: int
    pairs: int
    missing: int


class Plan(_Record):
    """Which layers go, which are tuned, which stay as they are."""

    method: str
    ratio: float
    n_layers: int = Field(gt=0)
    drop: list[int]
    tune: list[int]
    freeze: list[int]
    groups: list[Group]
    protected: list[int]
    shortfall: Shortfall
    sources: dict[str, str]

    @model_validator(mode="after")
    def _covers_every_layer_once(self) -> Plan:
        for name in ("drop", "tune", "freeze", "protected"):
            layers = getattr(self, name)
            if layers != sorted(set(layers)):
                raise ValueError(f"{name} must be sorted, without repeats: {layers}")
        given = sorted(self.drop + self.tune + self.freeze)
        if given != list(range(self.n_layers)):
            raise ValueError(
                f"drop, tune and freeze must hold each of the layers 0 to {self.n_layers - 1} once"
            )
        if lost := sorted(set(self.drop) & set(self.protected)):
            raise ValueError(f"layers {lost} are both dropped and protected")
        return self

    @property
    def keep(self) -> list[int]:
        """The layers that stay, in order."""
        return sorted(self.tune + self.freeze)

    @property
    def tuned_positions(self) -> list[int]:
        """Positions of the tuned layers in the pruned decoder."""
        return [position for position, layer in enumerate(self.keep) if layer in self.tune]


def layers_to_drop(ratio: float, n_layers: int) -> int:
    """`K = floor(ratio * L)`, immune to binary fractions (0.29 of 100 is 29).

    Raises:
        InputError: no layer would go.
    """
    drops = math.floor(ratio * n_layers + 1e-9)
    if drops < 1:
        raise InputError(
            f"ratio = {ratio}: drops none of {n_layers} layers;"
            f" the smallest ratio that drops one is {math.ceil(1e4 / n_layers) / 1e4}"
        )
    return drops


def select(
    scores: Path | str | pa.Table | Scores,
    *,
    method: str = "interlace",
    ratio: float = 0.25,
    shortfall: Policy = "pairs",
    protect_first: int | Literal["auto"] = "auto",
    protect_last: int = 0,
    seed: int = 0,
) -> Plan:
    """Decide which layers go.

    Args:
        scores: the score table: a Parquet file or an Arrow table.
        method: a name in `methods.METHODS`.
        ratio: share of the decoder's layers to drop, in (0, 1).
        shortfall: what to do when the method's own rule cannot reach K drops.
        protect_first: leading layers that are never dropped nor grouped; `auto`: as many as
            receive DeepStack features, which are added by position.
        protect_last: trailing layers that are never dropped nor grouped.
        seed: of methods that draw.

    Raises:
        InputError: an unknown method, a ratio that drops no layer, or more drops than are feasible.
    """
    choose = named(method)
    table = scores if isinstance(scores, Scores) else read_scores(scores)
    if not 0 < ratio < 1:
        raise InputError(f"ratio = {ratio}: must be greater than 0 and less than 1")
    wanted = layers_to_drop(ratio, table.n_layers)
    first = table.deepstack_layers if protect_first == "auto" else protect_first
    everyone = range(table.n_layers)
    protected = [i for i in everyone if i < first or i >= table.n_layers - protect_last]
    free = frozenset(everyone) - frozenset(protected)
    choice = choose(table, Request(wanted, free, shortfall, seed))
    kept = frozenset(everyone) - choice.drop - choice.tune
    return Plan(
        method=method,
        ratio=ratio,
        n_layers=table.n_layers,
        drop=sorted(choice.drop),
        tune=sorted(choice.tune),
        freeze=sorted(kept),
        groups=list(choice.groups),
        protected=protected,
        shortfall=Shortfall(
            policy=shortfall,
            wanted=wanted,
            triplets=sum(group.kind == "triplet" for group in choice.groups),
            pairs=sum(group.kind == "pair" for group in choice.groups),
            missing=wanted - len(choice.drop),
        ),
        sources=dict(table.provenance),
    )


def check_feasible(
    n_layers: int,
    deepstack_layers: int,
    *,
    method: str,
    ratio: float,
    shortfall: Policy,
    protect_first: int | Literal["auto"],
    protect_last: int,
) -> int:
    """Whether a choice can be made at all, before anything is measured.

    Equal scores are the kindest: ties go to lower layers, which leaves no gaps between groups.

    Returns:
        How many layers are to go.

    Raises:
        InputError: as `select` does.
    """
    spans = [(first, span) for span in (1, 2, 3) for first in range(n_layers - span + 1)]
    equal = {("cosine", first, span): 0.0 for first, span in spans}
    plan = select(
        Scores(n_layers, deepstack_layers, equal, {}),
        method=method,
        ratio=ratio,
        shortfall=shortfall,
        protect_first=protect_first,
        protect_last=protect_last,
    )
    return len(plan.drop)


def read_plan(path: Path) -> Plan:
    """Read and check a plan file.

    Raises:
        InputError: the file is missing, or what it says is not a plan.
    """
    try:
        return Plan.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `dvc repro select`") from None
    except ValidationError as error:
        raise InputError(validation_message(str(path), error)) from None
