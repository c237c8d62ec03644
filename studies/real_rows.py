"""The rows of the study on real weights: one per method, ratio, protection, seed and weights."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import exp
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from studies.real_losses import HeldoutLosses, agreement, rise, z_score

PLAIN, COMPENSATED = "plain", "compensated"  # kept weights as they are, or by the chosen rule
RERANKED = "search (compensated)"  # the best by the loss after compensation


@dataclass(frozen=True, order=True)
class Variant:
    """A model that is scored: the dense one without some layers.

    Attributes:
        drop: the dropped layers, ascending.
        weights: `plain`, a rule of compensation, or a method of sparsity.
    """

    drop: tuple[int, ...] = ()
    weights: str = PLAIN


@dataclass(frozen=True)
class Row:
    """A method's choice, and what it costs on held-out answers.

    Attributes:
        protect: `none` or `auto`; methods of sparsity protect nothing.
        seed: of `random`; 0 elsewhere.
        weights: see `Variant`.
        dropped: the layers.
        reason: why there is no choice; empty where there is one.
        rise: of the loss over the dense model's, nats per answer token.
        error: its paired standard error.
        perplexity_ratio: of the pruned and the dense model.
        agreement: share of answer tokens on which the first choice is the dense model's.
        agreement_error: its standard error.
        z: rise beyond that of the best row at this ratio, in paired errors; plain and compensated
            rows apart.
    """

    method: str
    ratio: float
    protect: str = "none"
    seed: int = 0
    weights: str = PLAIN
    dropped: tuple[int, ...] = ()
    reason: str = ""
    rise: float | None = None
    error: float | None = None
    perplexity_ratio: float | None = None
    agreement: float | None = None
    agreement_error: float | None = None
    z: float | None = None

    @property
    def variant(self) -> Variant:
        """The model that the row is about."""
        return Variant(self.dropped, self.weights)


AnyRow = TypeVar("AnyRow", bound=Row)


def scored(rows: Sequence[AnyRow], losses: Mapping[Variant, HeldoutLosses]) -> list[AnyRow]:
    """Fill in the numbers of all rows whose model was scored.

    Args:
        rows: with or without a choice.
        losses: by model; the dense model is `Variant()`.
    """
    dense = losses[Variant()]
    measured = []
    for row in rows:
        model = losses.get(row.variant)
        if row.reason or model is None:
            measured.append(row)
            continue
        value, error = rise(model, dense)
        share, share_error = agreement(model, dense)
        measured.append(
            replace(
                row,
                rise=value,
                error=error,
                perplexity_ratio=exp(value),
                agreement=share,
                agreement_error=share_error,
            )
        )
    return [_with_z(row, measured, losses) for row in measured]


def _with_z(row: AnyRow, rows: Sequence[AnyRow], losses: Mapping[Variant, HeldoutLosses]) -> AnyRow:
    if row.rise is None:
        return row
    same = [r for r in rows if r.ratio == row.ratio and is_plain(r) == is_plain(row)]
    best = min((r for r in same if r.rise is not None), key=lambda r: r.rise or 0.0)
    return replace(row, z=z_score(losses[row.variant], losses[best.variant]))


def is_plain(row: Row) -> bool:
    """Return True if a row's kept weights are the dense model's."""
    return row.weights == PLAIN


def write_rows(rows: Iterable[Any], path: Path, kind: type) -> None:
    """Write rows of a dataclass as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(kind)])
        for row in rows:
            writer.writerow([_shown(getattr(row, field.name)) for field in fields(kind)])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read_rows(path: Path, kind: type = Row) -> list[Any]:
    """Read rows of a dataclass that `write_rows` wrote."""
    kinds = get_type_hints(kind)
    with path.open(encoding="utf-8", newline="") as file:
        return [
            kind(**{name: _read(text, kinds[name]) for name, text in record.items()})
            for record in csv.DictReader(file)
        ]


def _read(text: str, kind: Any) -> Any:
    if not text and NoneType in get_args(kind):
        return None
    if get_origin(kind) is tuple:
        return tuple(map(int, text.split()))
    if kind is bool:
        return text == "True"
    return kind(text) if kind in (str, int) else float(text)


@dataclass(frozen=True)
class Layer:
    """A layer of the dense model, measured on the calibration set.

    Attributes:
        cosine: of its input and output, mean over tokens.
        first_cosine: the same of the first token alone.
        growth: the factor by which the first token's norm grows.
        loss: per answer token without this layer, nats.
        is_sink: the layer makes or ends a massive activation.
    """

    layer: int
    cosine: float
    first_cosine: float
    growth: float
    loss: float
    is_sink: bool


@dataclass(frozen=True)
class Facts:
    """What the page says beside the rows.

    Attributes:
        n_layers: of the dense decoder.
        heldout: rows and answer tokens that models are scored on.
        prompts: prompts that similarity is measured on.
        loss_rows: rows that losses without single layers are measured on.
        search_rows: rows that losses without sets of layers are measured on.
        passes: over these rows, budget of the search.
        fitted_rows: rows that weights are fitted on.
        dense_loss: of the dense model, nats per held-out answer token.
        seconds: of the processor, by measurement.
        not_served: methods that need what text does not have.
        rules: of compensation, the default first.
        machine: in words.
    """

    n_layers: int
    heldout: tuple[int, int]
    prompts: int
    loss_rows: int
    search_rows: int
    passes: int
    fitted_rows: int
    dense_loss: float
    seconds: Mapping[str, float]
    not_served: Sequence[str]
    rules: Sequence[str]
    machine: str
