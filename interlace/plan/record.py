"""The record of a decision: which layers are dropped, tuned and frozen, and why.

All indices are 0-based positions in the dense decoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from interlace.model.kinds import LayerKinds
from interlace.params.choosing import Base, Policy, Tuned
from interlace.scores.sinks import SinkLayers
from interlace.system.documents import read_record
from interlace.system.outputs import write_json

Sparsity = Literal["wanda-2:4", "magnitude-2:4"]
Reason = Literal["user", "deepstack", "paper", "sink"]  # why a layer is protected


class Record(BaseModel):
    """A frozen part of an artifact in JSON; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Group(Record):
    """Layers that were decided on together, and why.

    Attributes:
        kind: triplet, pair, run (neighbours) or layer (on its own).
        layers: its layers, in order; neighbours in the decoder that was measured.
        score: the score the group was taken for; missing where chance or a person decided.
        layer_scores: `S_1` of its layers that decided the roles within it, in order.
        drop: layers that go.
        tune: layers that are fine-tuned in their stead.
        anchor: the layer kept frozen after them.
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
        """The number of layers."""
        return len(self.layers)


class Shortfall(Record):
    """The drops that the method's own rule reached.

    Attributes:
        policy: what was to happen if it could not reach K.
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


class Decision(Record):
    """The number of layers that `ratio: auto` comes to, and why.

    Attributes:
        budget: params, ttft_speedup or retention.
        target: the value to reach or keep.
        drops: K, the layers to go.
        values: the budget's quantity by number of dropped layers, from 0 on.
        how: measured or predicted, and on what.
        reason: the decision in one line.
    """

    budget: str
    target: float
    drops: int = Field(ge=0)
    values: dict[int, float]
    how: str
    reason: str


class Stability(Record):
    """The share of resampled calibration sets that drop the same layers.

    Attributes:
        draws: tables of scores over as many samples, drawn with replacement.
        same: share of the draws that drop exactly the plan's layers.
        dropped: share of the draws that drop a layer, for each layer that any of them drops.
    """

    draws: int = Field(gt=0)
    same: float = Field(ge=0, le=1)
    dropped: dict[int, float]


class Plan(Record):
    """The layers that are dropped, tuned and frozen.

    Attributes:
        ratio: the ratio that was set; with a budget, K as a share of the base.
        base: the layers that the ratio is a share of.
        base_layers: the number of these.
        rounds: how many times the model was measured.
        heal_steps: updates of local healing after each round but the last, whose weights are kept.
        candidates: plans that were healed and compared before this one was chosen; 0: none.
        tuned: the survivors that are tuned: those that the method names, or others.
        decision: how a budget became K; missing where the ratio was set.
        protection: the protected layers by reason, each under its first one: named by the user, fed
            by DeepStack, by the method's paper, or as layers that make or end a massive activation.
        sinks: the layers that make or end one in the measured model, spared or not; missing where
            the scores do not say.
        deepstack_layers: leading layers that visual features are added after, by position.
        layer_kinds: the kinds of the dense decoder's layers, where they differ.
        period: layers of a period, of which only whole ones are dropped; 0: any layers.
        settings: the method's own settings, e.g. alpha or seed.
        sparsity: which weights are zeroed, by a method that does so instead of dropping layers.
        stability: how sure the choice is; missing where it reads nothing that was resampled.
    """

    method: str
    ratio: float
    base: Base = "all"
    base_layers: int = Field(0, ge=0)
    rounds: int = 1
    heal_steps: int = 0
    candidates: int = 0
    tuned: Tuned = "planned"
    decision: Decision | None = None
    settings: dict[str, float | int] = Field(default_factory=dict)
    sparsity: Sparsity | None = None
    n_layers: int = Field(gt=0, le=10_000)
    drop: list[int]
    tune: list[int]
    freeze: list[int]
    groups: list[Group]
    protected: list[int]
    protection: dict[Reason, list[int]] = Field(default_factory=dict)
    sinks: SinkLayers | None = None
    deepstack_layers: int = 0
    layer_kinds: LayerKinds | None = None
    period: int = Field(0, ge=0)
    shortfall: Shortfall
    stability: Stability | None = None
    sources: dict[str, str]

    @model_validator(mode="after")
    def _covers_every_layer_once(self) -> Plan:
        for name in ("drop", "tune", "freeze", "protected"):
            layers = getattr(self, name)
            if layers != sorted(set(layers)):
                raise ValueError(f"{name} must be sorted, without repeats: {layers}")
        if sorted(self.drop + self.tune + self.freeze) != list(range(self.n_layers)):
            raise ValueError(
                f"drop, tune and freeze must hold each of the layers 0 to {self.n_layers - 1} once"
            )
        if not self.keep:
            raise ValueError(f"drop holds all of the {self.n_layers} layers; one must stay")
        strangers = {layer for group in self.groups for layer in group.layers} - {
            *range(self.n_layers)
        }
        if strangers:
            raise ValueError(
                f"groups hold layers {sorted(strangers)}, which are not in the decoder"
            )
        reasons = sorted(layer for layers in self.protection.values() for layer in layers)
        if self.protection and reasons != self.protected:
            raise ValueError(f"protection must hold each of the layers {self.protected} once")
        if self.layer_kinds and {*map(len, self.layer_kinds.fields.values())} != {self.n_layers}:
            raise ValueError(f"layer_kinds must hold each of the {self.n_layers} layers once")
        if overlap := sorted(set(self.drop) & set(self.protected)):
            raise ValueError(f"layers {overlap} are both dropped and protected")
        return self

    def __repr__(self) -> str:
        """Say the most important in one line; `interlace show` draws all."""
        action = f"drop {self.drop}" if self.drop or not self.sparsity else "drop no layer"
        return (
            f"<Plan by {self.method}, ratio {self.ratio:.3g}: of {self.n_layers} layers,"
            f" {action}, tune {self.tune}>"
        )

    __str__ = __repr__

    def save(self, path: Path | str) -> None:
        """Write the plan to a JSON file, which `read_plan` reads and the stages do.

        Raises:
            InputError: the file system refuses it.
        """
        write_json(Path(path), self.model_dump(mode="json"))

    @property
    def keep(self) -> list[int]:
        """The layers that stay, in order."""
        return sorted(self.tune + self.freeze)

    @property
    def tuned_positions(self) -> list[int]:
        """Positions of the tuned layers in the pruned decoder."""
        return [position for position, layer in enumerate(self.keep) if layer in self.tune]


def read_plan(path: Path | str) -> Plan:
    """Read and check a plan file.

    Raises:
        InputError: the file is missing, or holds something else than a plan.
    """
    plan: Plan = read_record(Path(path), Plan)
    return plan


def read_decision(path: Path) -> Decision | None:
    """Read what `budget` decided; `None` where the ratio was set.

    Raises:
        InputError: the file is missing, or holds something else than a decision.
    """
    decision: Decision | None = read_record(path, Decision | None)
    return decision


def read_reference(path: Path) -> Plan | None:
    """Read the plan of a reference run; `None` without a reference.

    Raises:
        InputError: the file is missing, or holds something else than a plan.
    """
    plan: Plan | None = read_record(path, Plan | None)
    return plan
