"""Sinks: the layers that make or end a massive activation.

In pretrained decoders a few layers raise one token's norm far above all others', and later layers
bring it down again. Such a token serves as an attention sink (arXiv 2309.17453, 2402.17762). Means
over tokens hardly move, so that a layer whose removal ruins the model looks redundant. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from interlace.errors import ContractError
from interlace.scores.table import (
    FIRST_COSINE,
    FIRST_GROWTH,
    LARGEST_COSINE,
    LARGEST_GROWTH,
    LARGEST_NORM,
    SINK_END,
    SINK_START,
    Scores,
    measurement_batches,
)

Array: TypeAlias = NDArray[np.float64]
MASSIVE = 10.0  # norm of a massive token over the median norm of its sample's tokens, at least
RISE = 4.0  # the factor by which one layer raises it, at least
FALL = 1.5  # the factor by which one layer lowers it, at least: others leave it as it is
SHARE = 0.1  # of the samples in which a layer does so, at least
UNIT = 2**24  # sums are of multiples of its inverse: values reach 12 decades here
_NORMS = ["median_in", "median_out", "first_in", "first_out", "largest_in", "largest_out"]
_COLUMNS = ["domain", "layer", "first_cosine", "largest_cosine", *_NORMS]
_LEAST = 1e-6  # of a norm, where it is divided by


@dataclass(frozen=True)
class SinkLayers:
    """The layers around massive activations, 0-based.

    Attributes:
        start: layers that make a massive activation.
        end: later layers that bring one down.
    """

    start: tuple[int, ...] = ()
    end: tuple[int, ...] = ()

    @property
    def layers(self) -> list[int]:
        """All of them, in order."""
        return sorted({*self.start, *self.end})


def sink_layers(scores: Scores) -> SinkLayers | None:
    """Return the layers that make or end a massive activation in a tenth of the samples or more.

    A token is massive if its norm is at least `MASSIVE` times the median of its sample. A layer
    makes it so by raising the norm, against the median too, `RISE` times or more to that size; a
    layer ends it by lowering a massive token's norm `FALL` times or more. What no layer made, such
    as long embeddings of images, is no sink: nothing ends before something was made.

    Args:
        scores: a table of scores.

    Returns:
        `None` if the table holds no measurements of sinks.
    """
    if SINK_START not in scores.criteria:
        return None
    shares = {name: scores.of_span(1, name) for name in (SINK_START, SINK_END)}
    start = [layer for layer, share in shares[SINK_START].items() if share >= SHARE]
    end = [layer for layer, share in shares[SINK_END].items() if share >= SHARE]
    return SinkLayers(tuple(start), tuple(i for i in end if start and i > start[0]))


def sink_starts(median: tuple[Array, Array], token: tuple[Array, Array]) -> NDArray[np.bool_]:
    """Return where a layer makes a token massive.

    Args:
        median: the sample's median norm before and after the layer, [N] each.
        token: the token's norm before and after it, [N] each.
    """
    share_in, share_out = (token[side] / median[side] for side in (0, 1))
    raised = token[1] >= RISE * token[0]
    return np.asarray((share_out >= MASSIVE) & (share_out >= RISE * share_in) & raised)


def sink_ends(median: tuple[Array, Array], token: tuple[Array, Array]) -> NDArray[np.bool_]:
    """Return where a layer brings a massive token down; arguments as of `sink_starts`."""
    massive = token[0] >= MASSIVE * median[0]
    return np.asarray(massive & (token[0] >= FALL * token[1]))


def sink_values(path: Path) -> Iterator[tuple[NDArray[Any], dict[str, Array]]]:
    """Read the statistics of calibration rows, in small batches.

    Args:
        path: a Parquet file that `collect` wrote, one row per (sample, layer).

    Yields:
        Layers [N], and values [N] by criterion.

    Raises:
        InputError: the file lacks a column or is damaged.
        ContractError: a value is not finite.
    """
    for batch in measurement_batches(path, _COLUMNS, rows=2**16):
        native = batch.filter(pc.equal(batch["domain"], "native"))
        columns = {name: native[name].to_numpy().astype(np.float64) for name in _COLUMNS[2:]}
        if not all(np.isfinite(column).all() for column in columns.values()):
            raise ContractError(f"{path}: a norm or cosine is not finite; measure again")
        for name in _NORMS:
            columns[name] = np.maximum(columns[name], _LEAST)
        median, first, largest = (
            (columns[f"{name}_in"], columns[f"{name}_out"])
            for name in ("median", "first", "largest")
        )
        yield (
            native["layer"].to_numpy(),
            {
                FIRST_COSINE: columns["first_cosine"],
                FIRST_GROWTH: np.log10(first[1] / first[0]),
                LARGEST_COSINE: columns["largest_cosine"],
                LARGEST_GROWTH: np.log10(largest[1] / largest[0]),
                LARGEST_NORM: np.log10(largest[1] / median[1]),
                SINK_START: (sink_starts(median, first) | sink_starts(median, largest)).astype(
                    np.float64
                ),
                SINK_END: (sink_ends(median, first) | sink_ends(median, largest)).astype(
                    np.float64
                ),
            },
        )
