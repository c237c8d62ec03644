"""The decision: which layers are dropped, tuned and frozen, and why.

All indices are 0-based positions in the dense decoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from interlace.errors import InputError, validation_message

Auto = Literal["auto"]
Policy = Literal["pairs", "fewer", "error"]
Base = Literal["all", "prunable"]
Sparsity = Literal["wanda-2:4", "magnitude-2:4"]
Tuned = Literal["planned", "spaced", "anchors", "all", "none"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Group(_Record):
    """Layers that were decided on together, and why.

    Attributes:
        kind: triplet, pair, run (neighbours) or layer (on its own).
        layers: its layers, in order; neighbours in the decoder that was measured.
        score: the score the group was taken for; missing where chance or a person decided.
        layer_scores: `S_1` of its layers that decided the roles within it, in order.
        drop: layers that go.
        tune: layers that are fine-tuned in their stead.
        anchor: the layer kept frozen behind them.
        round: of a choice in several rounds, counted from 1.
    """

    kind: Literal["triplet", "pair", "run", "layer"]
    layers: tuple[int, ...]
    score: float | None
    layer_scores: tuple[float, ...] = ()
    drop: tuple[int, ...]
    tune: tuple[int, ...] = ()
    anchor: int | None = None
    round: int = 1

    @property
    def first(self) -> int:
        """The first layer."""
        return self.layers[0]

    @property
    def span(self) -> int:
        """How many layers."""
        return len(self.layers)


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


def read_reference(path: Path) -> Plan | None:
    """Read a reference's plan; none where none is asked for.

    Raises:
        InputError: the file is missing, or what it says is not a plan.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; run `dvc repro reference_plan`")
    return None if path.read_text(encoding="utf-8").strip() == "null" else read_plan(path)
