"""The call `interlace.measure`: the scores of a model's layers, from a model and rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from interlace.data.call_rows import Draw, Rows, draw_rows, pin_rows
from interlace.errors import InputError
from interlace.measurements import sensitivity
from interlace.measurements.collect import collect, provenance_of
from interlace.methods.registry import find_method
from interlace.params.measuring import Collect, LossCriterion, Sensitivity
from interlace.params.section import validated
from interlace.params.whole import Params
from interlace.scores.average import score
from interlace.scores.per_sample import read_sample_cosines
from interlace.scores.resample import bootstrap
from interlace.selection.feasible import ON_PROBES, loss_criterion
from interlace.sources.pin import pin_model
from interlace.sources.pinned import PinnedData, PinnedModel
from interlace.system.resumable import intact, kept, mark
from interlace.system.work import unfinished, work_root


@dataclass(frozen=True)
class MeasuredModel:
    """A model that is measured.

    Attributes:
        model: its source.
        rows: folder of the rows that it was measured on.
        scratch: folder that holds all this while the block runs.
        scores: as `score` returns them.
        replicates: as `bootstrap` returns them.
    """

    model: PinnedModel
    rows: Path
    scratch: Path
    scores: pa.Table
    replicates: pa.Table


def measure(
    model: Path | str,
    rows: Rows,
    *,
    method: str = "interlace",
    samples: int = 512,
    seed: int = 0,
    dtype: str = "auto",
    max_length: int = 8192,
    max_pixels: int | None = None,
    batch_tokens: int = 8192,
    max_span: int | None = None,
    max_ratio: float = 0.4,
    revision: str | None = None,
    trust_remote_code: bool = False,
    work: Path | str | None = None,
) -> pa.Table:
    """Measure how much each span of layers changes the hidden states, and what a method reads.

    Args:
        model: hub id or folder of the dense model.
        rows: a Parquet file or a folder of them in FineVision's schema, a hub id, an Arrow table,
            or a list of mappings.
        method: that is to choose; `sleb`, `search` and `taylor` read losses that are measured too.
        samples: rows to draw and measure on, rows.
        seed: of the draw.
        dtype: type to compute in; auto: bfloat16 on a GPU, float32 on a CPU.
        max_length: longest row, tokens; longer ones are skipped.
        max_pixels: cap on an image's size, pixels; `None`: the processor's own.
        batch_tokens: padded tokens per batch, tokens.
        max_span: longest span to score, layers; `None`: every span.
        max_ratio: share of the layers that `sleb` and `search` remove; serves smaller ratios.
        revision: of a model on the hub; `None`: the newest.
        trust_remote_code: let the model's own Python code run.
        work: folder from which an interrupted call resumes; `None`: it begins anew.

    Returns:
        The score table (docs/measurements.md), which `select` reads.

    Raises:
        InputError: a value out of its range, a method that is measured on probes, a model or rows
            that cannot be used.
        ContractError: a hidden state or a loss is not finite.
    """
    values = {
        "method": method,
        "seed": seed,
        "dtype": dtype,
        "measure": {
            "max_length": max_length,
            "max_pixels": max_pixels,
            "batch_tokens": batch_tokens,
        },
        "collect": {"max_span": max_span, "max_bad": most_skipped(samples)},
        "sensitivity": {"max_ratio": max_ratio},
        "model": {"id": str(model), "revision": revision, "trust_remote_code": trust_remote_code},
    }
    params = call_params(values, "measure")
    with work_root(work) as root:
        pinned = pin_params_model(params, root)
        with measured(pinned, pin_rows(rows, root), params, root, samples=samples) as result:
            return result.scores


def most_skipped(samples: int) -> int:
    """Return how many of the rows may be skipped because they cannot be read or are too long."""
    return max(10, samples // 10)


def call_params(values: dict[str, Any], call: str) -> Params:
    """Return the parameters of a call, checked as those of a file.

    Raises:
        InputError: a value out of its range, no such method, or one that is measured on probes.
    """
    params = validated(Params, {"data": {"id": "rows"}, **values}, call)
    if ON_PROBES & {*find_method(params.method).needs}:
        raise InputError(
            f"method = {params.method}: is measured on domain probes, which the pipeline alone"
            " draws; choose another method, or run the pipeline"
        )
    return params


def pin_params_model(params: Params, root: Path) -> PinnedModel:
    """Pin the model that the parameters name.

    Raises:
        InputError: see `pin_model`.
    """
    model = params.model
    trust = model.trust_remote_code
    hashes = root / "hashes.json"
    return pin_model(model.id, model.revision, hashes=hashes, trust_remote_code=trust)


@contextmanager
def measured(
    model: PinnedModel, data: PinnedData, params: Params, root: Path, *, samples: int
) -> Iterator[MeasuredModel]:
    """Measure a model on rows, and hold the folder of this work while the block runs.

    An interrupted run resumes; see `draw_rows`, `collect` and `sensitivity.measure_method`.

    Args:
        model: the dense model.
        data: rows to draw from.
        params: the method, the seed, and how to measure.
        root: see `work_root`.
        samples: rows to draw.

    Raises:
        InputError: see `measure`.
        ContractError: see there.
    """
    criterion = loss_criterion(params, model.n_layers, model.deepstack_layers)
    losses = params.sensitivity_options if criterion else ""
    key = model, data, f"{samples} {params.seed} {criterion}", params.collect_options, losses
    with unfinished(root, "measure", *key) as scratch:
        draw = Draw(samples, params.seed, with_images=model.takes_images)
        rows = draw_rows(data, draw, scratch / "rows", root)
        tables = scratch / "scores.parquet", scratch / "replicates.parquet"
        if not all(map(intact, tables)):
            states = _hidden_states(model, rows, params.collect_options, scratch)
            needed = validated(LossCriterion, criterion, "method") if criterion else None
            loss_scores = _losses(model, rows, needed, params.sensitivity_options, scratch)
            pooled, sinks = states / "pooled", states / "sinks"
            similarity = states / "similarity"
            scores = score(similarity, pooled if pooled.exists() else None, loss_scores, sinks)
            results = scores, bootstrap(read_sample_cosines(similarity))
            for table, file in zip(results, tables, strict=True):
                with kept(file) as partial:
                    parquet.write_table(table, partial)
        yield MeasuredModel(model, rows, scratch, *map(parquet.read_table, tables))


def _hidden_states(model: PinnedModel, rows: Path, params: Collect, scratch: Path) -> Path:
    """Measure what layers do to hidden states, as the stage `collect`; return the folder."""
    out = scratch / "hidden_states"
    if not intact(out):
        dense = model.checkpoint()
        collect(
            dense.open_model(**params.opening()),
            dense.open_processor(max_pixels=params.max_pixels),
            [rows],
            out,
            params=params,
            scratch=scratch / "batches",
            provenance=provenance_of(model),
        )
        mark(out)
    return out


def _losses(
    model: PinnedModel, rows: Path, needed: LossCriterion | None, params: Sensitivity, scratch: Path
) -> Path | None:
    """Measure the losses that a method reads, as the stage `sensitivity`; return their table."""
    if needed is None:
        return None
    dense, out = model.checkpoint(), scratch / "sensitivity"
    if not intact(out):
        sensitivity.measure_method(
            dense.open_model(dtype=params.dtype),
            dense.open_processor(max_pixels=params.max_pixels),
            rows,
            out,
            needed=needed,
            params=params,
            scratch=scratch / "losses",
            provenance=provenance_of(model),
        )
        mark(out)
    return out / "scores.parquet"
