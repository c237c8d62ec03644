"""The decision: which layers are dropped, tuned and frozen, and why.

All indices are 0-based positions in the dense decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from interlace.errors import InputError, validation_message
from interlace.methods import Group, Request, named
from interlace.methods.choice import Base, Policy, Sparsity
from interlace.methods.rounds import Later, Table, choose_in_rounds
from interlace.methods.survivors import Tuned, tuned_layers
from interlace.scores import Scores, read_scores

Auto = Literal["auto"]


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


class Decision(_Record):
    """How `ratio: auto` became a number of layers.

    Attributes:
        budget: params, ttft_speedup or retention.
        target: what was asked for.
        drops: K, the layers to go.
        values: what each number of layers comes to, by K from 0 on.
        how: measured or predicted, and on what.
        reason: the decision in one line.
    """

    budget: str
    target: float
    drops: int
    values: dict[int, float]
    how: str
    reason: str


class Stability(_Record):
    """How often another draw of samples drops the same layers.

    Attributes:
        draws: tables of scores over as many samples, drawn with replacement.
        same: share of them by which exactly the same layers go.
        dropped: share of them by which a layer goes, of each that goes by any.
    """

    draws: int = Field(gt=0)
    same: float = Field(ge=0, le=1)
    dropped: dict[int, float]


class Plan(_Record):
    """Which layers go, which are tuned, which stay as they are.

    Attributes:
        ratio: as asked for; with a budget, K as a share of the base.
        base: the layers that the ratio is a share of.
        base_layers: how many these are.
        rounds: how many times the model was measured.
        tuned: which survivors are tuned: those that the method names, or others.
        decision: how a budget became K; missing where the ratio was given.
        deepstack_layers: leading layers that visual features are added after, by position.
        settings: what else the method was told, e.g. alpha or seed.
        sparsity: which weights are zeroed, where a method does that instead of dropping layers.
        stability: how sure the choice is; missing where it reads nothing that was resampled.
    """

    method: str
    ratio: float
    base: Base = "all"
    base_layers: int = Field(0, ge=0)
    rounds: int = 1
    tuned: Tuned = "planned"
    decision: Decision | None = None
    settings: dict[str, float | int] = Field(default_factory=dict)
    sparsity: Sparsity | None = None
    n_layers: int = Field(gt=0)
    drop: list[int]
    tune: list[int]
    freeze: list[int]
    groups: list[Group]
    protected: list[int]
    deepstack_layers: int = 0
    shortfall: Shortfall
    stability: Stability | None = None
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

    Args:
        ratio: share of the layers, in (0, 1).
        n_layers: the layers it is a share of: all, or those not protected.

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


def protected_layers(
    method: str,
    n_layers: int,
    deepstack_layers: int,
    protect_first: int | Auto = "auto",
    protect_last: int | Auto = "auto",
) -> list[int]:
    """The layers that are never dropped nor grouped.

    Args:
        method: whose paper's own rule `auto` follows.
        n_layers: L, of the decoder.
        deepstack_layers: leading layers that receive DeepStack features, added by position.
        protect_first: leading layers; `auto`: the DeepStack layers, and those of the method's rule.
        protect_last: trailing layers; `auto`: those of the method's rule.

    Raises:
        InputError: an unknown method.
    """
    rule = named(method)
    first = max(deepstack_layers, rule.protect_first) if protect_first == "auto" else protect_first
    last = rule.protect_last if protect_last == "auto" else protect_last
    return [i for i in range(n_layers) if i < first or i >= n_layers - last]


def select(
    scores: Table | Scores,
    *,
    method: str = "interlace",
    ratio: float | Auto = 0.25,
    drops: int | None = None,
    shortfall: Policy = "pairs",
    protect_first: int | Auto = "auto",
    protect_last: int | Auto = "auto",
    base: Base | Auto = "auto",
    alpha: float = 0.7,
    seed: int = 0,
    drop: Sequence[int] = (),
    tune: Sequence[int] = (),
    tuned: Tuned = "planned",
    rounds: int = 1,
    later: Later = (),
    decision: Decision | None = None,
) -> Plan:
    """Decide which layers go.

    Args:
        scores: the score table: a Parquet file or an Arrow table.
        method: a name in `methods.METHODS`.
        ratio: share of the decoder's layers to drop, in (0, 1); `auto`: as `decision` says.
        drops: K itself, instead of a ratio.
        shortfall: what to do when the method's own rule cannot reach K drops.
        protect_first: leading layers that are never dropped nor grouped; `auto`: as many as
            receive DeepStack features, which are added by position, and those of the method's
            paper.
        protect_last: trailing layers that are never dropped nor grouped; `auto`: those of the
            method's paper.
        base: what the ratio is a share of: all layers or the `prunable` ones, those not protected;
            `auto`: as in the method's paper.
        alpha: of `mixed`: weight of the non-math ranking, in [0, 1].
        seed: of methods that draw.
        drop: of `manual`: the layers that go.
        tune: of `manual`: the layers that are tuned.
        tuned: which survivors are tuned: `planned`, as the method says; `spaced`, as many, evenly
            over the survivors; `anchors`; `all`; `none`.
        rounds: in how many steps to drop them.
        later: tables measured on the pruned model before each further round, `rounds - 1` of them;
            or a function that measures, given the choice so far.
        decision: how a budget became K; goes with `ratio = auto`.

    Raises:
        InputError: an unknown method, a value out of its range, a measurement that is missing, a
            ratio that drops no layer, or more drops than are feasible.
    """
    rule = named(method)
    table = scores if isinstance(scores, Scores) else read_scores(scores)
    _check(table, ratio, shortfall, tuned, alpha)
    if ratio == "auto":
        if decision is None:
            raise InputError("ratio = auto: no budget was decided on; run `dvc repro budget`")
        drops = decision.drops
    n, everyone = table.n_layers, range(table.n_layers)
    protected = protected_layers(method, n, table.deepstack_layers, protect_first, protect_last)
    base = rule.base if base == "auto" else base
    base_layers = n if base == "all" else n - len(protected)
    if not base_layers:
        raise InputError(
            f"all {n} layers are protected; lower select.protect_first or select.protect_last"
        )
    if drops is not None and not 0 <= drops < n:
        raise InputError(f"drops = {drops}: must lie in [0, {n - 1}]; one layer at least stays")
    if method == "manual":
        drops = len(drop)
    if rule.sparsity:
        drops = 0  # whatever the ratio
    if drops is None and ratio != "auto":
        wanted, share = layers_to_drop(ratio, base_layers), ratio
    else:
        wanted = drops or 0
        share = wanted / base_layers
    request = Request(
        drops=wanted,
        free=frozenset(everyone) - frozenset(protected),
        shortfall=shortfall,
        seed=seed,
        alpha=alpha,
        given_drop=tuple(drop),
        given_tune=tuple(tune),
    )
    choice = choose_in_rounds(rule, request, table, rounds, later)
    to_tune = tuned_layers(tuned, choice, n)
    to_go = wanted if rule.removes else 0
    return Plan(
        method=method,
        ratio=share,
        base=base,
        base_layers=base_layers,
        rounds=rounds,
        tuned=tuned,
        decision=decision if ratio == "auto" else None,
        settings=_settings(method, alpha, seed),
        sparsity=rule.sparsity,
        n_layers=n,
        drop=sorted(choice.drop),
        tune=sorted(to_tune),
        freeze=sorted(frozenset(everyone) - choice.drop - to_tune),
        groups=[_as_tuned(group, to_tune) for group in choice.groups],
        protected=protected,
        deepstack_layers=table.deepstack_layers,
        shortfall=Shortfall(
            policy=shortfall,
            wanted=to_go,
            triplets=sum(group.kind == "triplet" for group in choice.groups),
            pairs=sum(group.kind == "pair" for group in choice.groups),
            missing=to_go - len(choice.drop),
        ),
        sources=dict(table.provenance),
    )


def _as_tuned(group: Group, tuned: frozenset[int]) -> Group:
    """A group with those of its layers that are really tuned."""
    return group.model_copy(update={"tune": tuple(i for i in group.tune if i in tuned)})


def _check(table: Scores, ratio: float | Auto, shortfall: str, tuned: str, alpha: float) -> None:
    """Refuse values that no choice can be made with."""
    for name, value, allowed in (("shortfall", shortfall, Policy), ("tuned", tuned, Tuned)):
        if value not in get_args(allowed):
            raise InputError(
                f"select.{name} = {value!r}: must be one of {', '.join(get_args(allowed))}"
            )
    if table.kept not in ((), tuple(range(table.n_layers))):
        raise InputError(
            "scores were measured on a pruned model; run `dvc repro score` on the dense one"
        )
    if ratio != "auto" and not 0 < ratio < 1:
        raise InputError(f"ratio = {ratio}: must be greater than 0 and less than 1")
    if not 0 <= alpha <= 1:
        raise InputError(f"select.alpha = {alpha}: must lie in [0, 1]")


def _settings(method: str, alpha: float, seed: int) -> dict[str, float | int]:
    """What the method was told beside the ratio, of what it reads."""
    told: dict[str, dict[str, float | int]] = {
        "mixed": {"alpha": alpha},
        "random": {"seed": seed},
    }
    return told.get(method, {})


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


def read_decision(path: Path) -> Decision | None:
    """Read what `budget` decided; none where the ratio was given.

    Raises:
        InputError: the file is missing, or what it says is not a decision.
    """
    try:
        return TypeAdapter(Decision | None).validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `dvc repro budget`") from None
    except ValidationError as error:
        raise InputError(validation_message(str(path), error)) from None
