"""Parameters of the choice of layers."""

from __future__ import annotations

import math
from collections import Counter
from numbers import Integral
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, field_validator, model_validator

from interlace.params.section import MOST, Section, Seed

Auto = Literal["auto"]
Policy = Literal["pairs", "fewer", "error"]
Base = Literal["all", "prunable"]
Tuned = Literal["planned", "spaced", "anchors", "all", "none"]
Period = Literal["any", "keep"]


def _ratio(value: Any) -> float | Auto:
    """One complaint for whatever is wrong with a ratio."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not 0 < number < 1:
        raise ValueError("must be greater than 0 and less than 1, or auto")
    return number


Ratio = Annotated[
    float | Auto,
    PlainValidator(_ratio),
    Field(
        0.25,
        description="share of decoder layers to drop, K = floor(ratio * L); auto: by the budget",
    ),
]
Method = Annotated[
    str, Field("interlace", description="how layers are chosen; `interlace methods` lists them")
]


def _protect(value: Any) -> Any:
    """One complaint for whatever is wrong with the protected layers."""
    if value in ("auto", "none"):
        return value
    layers = list(value) if isinstance(value, list | tuple) else [value]
    if not isinstance(value, list | tuple) or not all(_is_layer(layer) for layer in layers):
        raise ValueError("must be auto, none, or a list of layers counted from 0, e.g. [0, 11]")
    if repeated := [layer for layer, times in Counter(layers).items() if times > 1]:
        raise ValueError(f"layer {repeated[0]} is named twice")
    return tuple(sorted(map(int, layers)))


def _is_layer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) <= MOST


class Protection(Section):
    """Layers that are never dropped nor grouped."""

    protect: Annotated[
        Literal["auto", "none"] | tuple[int, ...],
        BeforeValidator(_protect),
        Field(
            description="layers never dropped; auto: those that DeepStack feeds, those that the"
            " method's paper protects, and those that make or end a massive activation; none: those"
            " of the paper alone; or a list of exactly these, 0-based",
        ),
    ] = "auto"
    protect_first: int | Auto = Field(
        "auto",
        description="with protect: auto, leading layers never dropped, layers; auto: the DeepStack"
        " layers, and at least those that the method's paper protects",
    )
    protect_last: int | Auto = Field(
        "auto",
        description="with protect: auto, trailing layers never dropped, layers; auto: as the"
        " method's paper has it",
    )

    @field_validator("protect_first", "protect_last")
    @classmethod
    def _not_negative(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 0:
            raise ValueError("must be 0 or more, or auto")
        return value

    @model_validator(mode="after")
    def _one_of_the_two_protects(self) -> Protection:
        for end in ("protect_first", "protect_last"):
            layers = getattr(self, end)
            if self.protect != "auto" and layers != "auto":
                protect = self.protect if self.protect == "none" else list(self.protect)
                raise ValueError(
                    f"protect = {protect} and {end} = {layers}: {end} counts only with protect ="
                    f" auto; set {end} to auto, or name its layers in protect"
                )
        return self


class Select(Protection):
    """The rules of the choice."""

    base: Literal["auto", Base] = Field(
        "auto",
        description="layers that the ratio is a share of: all, or those not protected; auto: as"
        " the method's paper has it",
    )
    shortfall: Policy = Field(
        "pairs", description="what to do when disjoint triplets run out before K drops"
    )
    alpha: float = Field(
        0.7, ge=0, le=1, description="mixed: weight of the non-math ranking, the rest is math"
    )
    period: Period = Field(
        "any",
        description="keep: where the kinds of layers repeat in a period, drop whole periods only,"
        " for runtimes that take a layer's kind from its number; any: whichever layers",
    )
    rounds: int = Field(
        1, ge=1, description="prune in so many steps, measuring again after each, rounds"
    )
    drop: tuple[int, ...] = Field((), description="manual: the layers to drop, 0-based")
    tune: tuple[int, ...] = Field((), description="manual: the layers to tune, 0-based")
    tuned: Tuned = Field(
        "planned",
        description="survivors that are tuned; planned: as the method says; spaced: as many, evenly"
        " over the survivors",
    )
    heal_steps: int = Field(
        0,
        ge=0,
        description="updates of local healing before each further round's measurement, whose"
        " weights are kept, steps; 0: none",
    )
    candidates: int = Field(
        0,
        ge=0,
        le=64,
        description="plans of each method that are healed for a few steps and compared by the loss"
        " on training rows kept apart, its best by its own criterion, plans; 0: the first is taken",
    )
    candidate_methods: tuple[str, ...] = Field(
        (), description="candidates: methods whose plans are compared with those of `method`"
    )
    candidate_steps: int = Field(
        50,
        ge=1,
        description="candidates: updates of healing each, by the recipe of finetune, steps",
    )
    candidate_rows: int = Field(
        256,
        ge=2,
        description="candidates: rows of the training set that judge them and that they are not"
        " healed on, rows; at most a quarter of the set",
    )

    @model_validator(mode="after")
    def _candidates_are_on(self) -> Select:
        if self.candidate_methods and not self.candidates:
            raise ValueError(
                f"candidate_methods = {list(self.candidate_methods)} counts only with candidates;"
                " set candidates to 1 or more, or candidate_methods to []"
            )
        return self

    @model_validator(mode="after")
    def _periods_are_chosen_once(self) -> Select:
        for name, value, once in (("rounds", self.rounds, 1), ("candidates", self.candidates, 0)):
            if self.period == "keep" and value != once:
                raise ValueError(
                    f"period = keep and {name} = {value}: whole periods are chosen once; set {name}"
                    f" to {once}, or period to any"
                )
        return self


Reference = Annotated[
    Literal["none", "dense-ft", "dense-sft"],
    Field(
        "none",
        description="the dense model tuned by the same recipe, to be compared with; dense-ft: its"
        " last layers, as many as the ratio or budget is of all; dense-sft: all its layers",
    ),
]


class SelectParams(Section):
    """`select`: decide which layers go."""

    ratio: Ratio
    method: Method
    seed: Seed
    select: Select = Select()


class ReferencePlanParams(Section):
    """`reference_plan`: say which layers of the dense model the reference run tunes."""

    ratio: Ratio
    reference: Reference
