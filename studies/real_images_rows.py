"""The rows of the study with images: a model's loss on held-out answers, and its exact answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interlace.model.chat import IGNORED, encode_training
from interlace.model.row_losses import last_answer
from interlace.samples.rows import iterate
from studies.methods_page import MATH
from studies.real_images_healing import healed
from studies.real_losses import HeldoutLosses
from studies.real_rows import PLAIN, Row, Variant, scored


@dataclass(frozen=True)
class ImageRow(Row):
    """A model, and what it costs on held-out answers about images.

    Attributes:
        weights: `plain`, or the way in which the kept weights were compensated and healed.
        exact: percent of rows whose last answer is right to the last token.
        exact_error: standard error of its difference from the dense model's, paired row by row.
        math: `exact` on benchmarks of arithmetic.
        math_error: as `exact_error`.
        other: `exact` on the other benchmarks.
        other_error: as `exact_error`.
        rate: learning rate; 0 without healing.
        validation: loss on the rows that learning rates are chosen on, nats per answer token.
    """

    exact: float | None = None
    exact_error: float | None = None
    math: float | None = None
    math_error: float | None = None
    other: float | None = None
    other_error: float | None = None
    rate: float = 0.0
    validation: float | None = None

    @property
    def variant(self) -> Variant:
        """The model that the row is about."""
        return Variant(self.dropped, healed(self.weights, self.rate))


@dataclass(frozen=True)
class Heldout:
    """What is asked for in the held-out rows.

    Attributes:
        answers: true tokens of each row's answers.
        last: tokens of its last answer.
        is_math: True for rows of a benchmark of arithmetic, [R].
        sources: benchmark of each row.
    """

    answers: Sequence[NDArray[np.int32]]
    last: Sequence[int]
    is_math: NDArray[np.bool_]
    sources: Sequence[str]


def read_heldout(rows: Path, processor: Any) -> Heldout:
    """Encode the held-out rows of a folder, in their order."""
    answers, last, sources = [], [], []
    for row in iterate(rows):
        example = encode_training(processor, row)
        labels = example["labels"][1:]
        answers.append(labels[labels != IGNORED].numpy().astype(np.int32))
        last.append(int((last_answer(example)["labels"][1:] != IGNORED).sum()))
        sources.append(row["source"])
    return Heldout(answers, last, np.isin(sources, MATH), sources)


def exact_answers(losses: HeldoutLosses, heldout: Heldout) -> NDArray[np.float64]:
    """Return 100 for each row whose last answer is right to the last token, else 0, [R].

    Each token is the model's first choice after the true ones: just so the greedy answer is right.
    """
    choices = np.split(losses.choices, np.cumsum(losses.n_tokens)[:-1])
    rows = zip(choices, heldout.answers, heldout.last, strict=True)
    return np.array([100.0 * np.array_equal(c[-n:], a[-n:]) for c, a, n in rows])


def paired(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of differences row by row, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def judged(
    rows: Sequence[ImageRow],
    losses: Mapping[Variant, HeldoutLosses],
    heldout: Heldout,
) -> list[ImageRow]:
    """Fill in the numbers of all rows whose model was scored.

    Args:
        rows: with or without a choice.
        losses: by model; the dense model is `Variant()`.
        heldout: what is asked for.
    """
    dense = losses[Variant()]
    sets = {"exact": slice(None), "math": heldout.is_math, "other": ~heldout.is_math}
    right = exact_answers(dense, heldout)
    measured = []
    for row in scored(rows, losses):
        if row.rise is None:
            measured.append(row)
            continue
        answers = exact_answers(losses[row.variant], heldout)
        numbers: dict[str, float] = {}
        for name, chosen in sets.items():
            numbers[name] = float(answers[chosen].mean())
            numbers[f"{name}_error"] = paired(answers[chosen] - right[chosen])[1]
        measured.append(replace(row, **numbers))
    return measured


@dataclass(frozen=True)
class Contrast:
    """Two methods at one ratio on one kind of benchmark.

    Attributes:
        ratio: of layers dropped.
        first: a method.
        second: another one; of `random`, the mean over draws.
        kind: of benchmark, `math` or `other`.
        value: by how much the first one's exact match is higher, percentage points.
        error: its standard error: paired over rows, and over draws.
    """

    ratio: float
    first: str
    second: str
    kind: str
    value: float
    error: float


def contrasts(
    rows: Sequence[ImageRow],
    losses: Mapping[Variant, HeldoutLosses],
    heldout: Heldout,
    pairs: Sequence[tuple[str, str]],
) -> list[Contrast]:
    """Compare methods without protection and without new weights, in pairs.

    Args:
        rows: of the study.
        losses: by model.
        heldout: what is asked for.
        pairs: names of methods.
    """
    answers: dict[tuple[float, str], list[NDArray[np.float64]]] = {}
    for row in rows:
        if (row.protect, row.weights) == ("none", PLAIN) and row.variant in losses:
            right = exact_answers(losses[row.variant], heldout)
            answers.setdefault((row.ratio, row.method), []).append(right)
    found = []
    for ratio in sorted({ratio for ratio, _ in answers}):
        for first, second in pairs:
            if (ratio, first) not in answers or (ratio, second) not in answers:
                continue
            one, other = (np.stack(answers[ratio, name]) for name in (first, second))  # [draws, R]
            for kind, chosen in (("math", heldout.is_math), ("other", ~heldout.is_math)):
                value, error = paired(one[:, chosen].mean(0) - other[:, chosen].mean(0))
                draws = [many[:, chosen].mean(1) for many in (one, other)]  # [draws]
                spread = sum(d.var(ddof=1) / len(d) for d in draws if len(d) > 1)
                whole = float(np.sqrt(error**2 + spread))
                found.append(Contrast(ratio, first, second, kind, value, whole))
    return found
