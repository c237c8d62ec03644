"""Layer scores from the loss on answers: SLEB's order, searched sets, and Taylor importance.

SLEB (arXiv 2402.09025) removes, step by step, the layer whose removal gives the lowest loss.
First-order Taylor importance is `sum |W * dL/dW|` over the weights of a layer. The loss L is the
mean cross-entropy over the answer tokens of all samples, however they are batched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

import interlace
from interlace.errors import ContractError, InputError
from interlace.measurements.search import search_sets
from interlace.measurements.set_losses import dtype_name, in_type, set_losses
from interlace.model.answer_loss import layer_gradients
from interlace.model.decoder import decoder_layers
from interlace.model.pruned_losses import SharedStates
from interlace.params.measuring import LossCriterion, Sensitivity
from interlace.samples.answered_rows import AnsweredRows, answer_tokens, answered_rows
from interlace.scores.table import SCHEMA, SEARCH, SLEB, TAYLOR
from interlace.system.outputs import remove, whole
from interlace.system.resumable import intact, kept

SLEB_LOSS = f"{SLEB}/loss"  # the loss once the layer is removed
CANDIDATES = pa.schema(
    [
        ("step", pa.int32()),
        ("layer", pa.int32()),
        ("loss", pa.float64()),
        ("n_tokens", pa.int64()),
        ("removed", pa.bool_()),
    ]
)
STATE_BYTES = 2**30  # that a removal keeps for the next one
_RESUME_POINTS = 10  # of Taylor: a killed run loses at most a tenth of the batches


def measure_method(
    model: Any,
    processor: Any,
    calibration: Path,
    out: Path,
    *,
    needed: LossCriterion,
    params: Sensitivity,
    scratch: Path,
    provenance: dict[str, str],
) -> None:
    """Measure a method's layer scores; write `scores.parquet`, of sets also `candidates.parquet`.

    An interrupted run resumes after the last finished batch (SLEB; the search: of a few sets) or
    tenth of them (Taylor).

    Args:
        model: the dense model; it is unchanged afterwards.
        processor: its processor.
        calibration: folder that `sample` wrote.
        out: folder to write.
        needed: the criterion, and the layers that may not be removed.
        params: how many rows to measure on, and how far to remove layers.
        scratch: folder for finished work; must be another one whenever inputs or params change.
        provenance: the files' metadata about the model.

    Raises:
        InputError: no rows with answers, or no layer to remove.
        ContractError: a loss or a gradient is not finite.
    """
    rows = answered_rows(processor, calibration, scratch / "rows", params)
    tables = MEASURES[needed.criterion](model, rows, needed.protected, params, scratch)
    metadata = provenance | {
        "dtype": dtype_name(model.dtype),
        "rows_left_out": str(rows.skipped),
        "code_version": interlace.__version__,
    }
    with whole(out) as partial:
        partial.mkdir()
        for name, table in tables.items():
            pq.write_table(table.replace_schema_metadata(metadata), partial / f"{name}.parquet")
    remove(scratch)


def _sleb_tables(
    model: Any, rows: AnsweredRows, protected: Sequence[int], params: Sensitivity, scratch: Path
) -> dict[str, pa.Table]:
    steps = removal_count(params.max_ratio, len(decoder_layers(model)), protected)
    candidates = removal_losses(model, rows, protected, steps, scratch)
    removed = [row for row in candidates.to_pylist() if row["removed"]]
    removed.sort(key=lambda row: row["layer"])
    values = [(SLEB, row["layer"], float(row["step"])) for row in removed]
    values += [(SLEB_LOSS, row["layer"], row["loss"]) for row in removed]
    return {"scores": _scores(values, len(rows.paths)), "candidates": candidates}


def _search_tables(
    model: Any, rows: AnsweredRows, protected: Sequence[int], params: Sensitivity, scratch: Path
) -> dict[str, pa.Table]:
    largest = removal_count(params.max_ratio, len(decoder_layers(model)), protected)
    bests, candidates = search_sets(model, rows, protected, largest, params.passes, scratch)
    values = [
        (f"{SEARCH}/{size}", layer, loss) for size, (drop, loss) in bests.items() for layer in drop
    ]
    smallest = {i: size for size in sorted(bests, reverse=True) for i in bests[size][0]}
    values += [(SEARCH, layer, float(size)) for layer, size in sorted(smallest.items())]
    return {"scores": _scores(values, len(rows.paths)), "candidates": candidates}


def _taylor_tables(
    model: Any, rows: AnsweredRows, _: Sequence[int], __: Sensitivity, scratch: Path
) -> dict[str, pa.Table]:
    importance = taylor_importance(model, rows, scratch)
    values = [(TAYLOR, layer, value) for layer, value in enumerate(importance)]
    return {"scores": _scores(values, len(rows.paths))}


MEASURES: dict[str, Callable[..., dict[str, pa.Table]]] = {
    SLEB: _sleb_tables,
    SEARCH: _search_tables,
    TAYLOR: _taylor_tables,
}


def _scores(values: Sequence[tuple[str, int, float]], n: int) -> pa.Table:
    rows = [
        {"criterion": criterion, "first": layer, "span": 1, "value": value, "n": n}
        for criterion, layer, value in values
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def removal_count(max_ratio: float, n_layers: int, protected: Sequence[int]) -> int:
    """Return the most layers that are removed: `floor(max_ratio * L)`, and no protected ones.

    Raises:
        InputError: the number is 0.
    """
    count = min(math.floor(max_ratio * n_layers + 1e-9), n_layers - len(protected))
    if count < 1:
        raise InputError(
            f"sensitivity.max_ratio = {max_ratio}: removes none of {n_layers} layers, of which"
            f" {len(protected)} are protected; raise it, or protect fewer layers"
        )
    return count


def removal_losses(
    model: Any, rows: AnsweredRows, protected: Sequence[int], steps: int, scratch: Path
) -> pa.Table:
    """Remove layers one after another, each time the one whose removal gives the lowest loss.

    Of equal losses the first layer goes.

    Args:
        model: the dense model; it is unchanged afterwards.
        rows: the loss is measured on these.
        protected: layers that stay.
        steps: number of layers to remove.
        scratch: folder for losses by step and batch; finished ones are not measured again.

    Returns:
        A table of `CANDIDATES`: all candidates of all steps, the removed ones marked.

    Raises:
        ContractError: a loss is not finite.
    """
    free = [layer for layer in range(len(decoder_layers(model))) if layer not in protected]
    states = {n: SharedStates(STATE_BYTES // len(rows.groups)) for n in range(len(rows.groups))}
    removed: list[int] = []
    tables = []
    runs = sum(len(free) - step for step in range(steps)) * len(rows.groups)
    with tqdm(total=runs, unit="candidate", desc="sleb") as progress:
        for step in range(steps):
            layers = [layer for layer in free if layer not in removed]
            drops = [tuple(sorted([*removed, layer])) for layer in layers]
            folder, advance = scratch / f"step-{step:03d}", partial(progress.update, len(drops))
            sums, tokens = set_losses(model, rows, drops, folder, advance, states)
            losses = {layer: total / tokens for layer, total in zip(layers, sums, strict=True)}
            removed.append(min(layers, key=lambda layer: (losses[layer], layer)))
            tables.append(_candidates(step, losses, tokens, removed[-1]))
            for shared in states.values():
                shared.forget(removed[-1])
    return pa.concat_tables(tables).combine_chunks()


def _candidates(step: int, losses: dict[int, float], tokens: int, best: int) -> pa.Table:
    rows = [
        {"step": step, "layer": i, "loss": loss, "n_tokens": tokens, "removed": i == best}
        for i, loss in losses.items()
    ]
    return pa.Table.from_pylist(rows, schema=CANDIDATES)


def taylor_importance(model: Any, rows: AnsweredRows, scratch: Path) -> list[float]:
    """Return the importance of all layers, `sum |W * dL/dW|` over a layer's weights.

    Args:
        model: the dense model; it is unchanged afterwards.
        rows: the loss is measured on these.
        scratch: folder for sums of gradients; finished batches are not measured again.

    Raises:
        ContractError: a gradient is not finite.
    """
    layers = decoder_layers(model)
    weights = {f"{i}.{k}": w for i, layer in enumerate(layers) for k, w in layer.named_parameters()}
    file, n = scratch / "gradients.safetensors", len(rows.groups)
    sums, done, tokens = _gradients_so_far(file, weights)
    with tqdm(total=len(rows.paths), unit="sample", desc="taylor") as progress:
        progress.update(sum(map(len, rows.groups[:done])))
        for number in range(done, n):
            batch = rows.batch(number, model.device)
            _add_gradients(sums, model, batch)
            tokens += answer_tokens(batch["labels"])
            if (number + 1) % math.ceil(n / _RESUME_POINTS) == 0:
                counts = {"batches": str(number + 1), "tokens": str(tokens)}
                with kept(file) as partial:
                    save_file(sums, partial, metadata=counts)
            progress.update(len(rows.groups[number]))
    importance = [0.0] * len(layers)
    for name, total in sums.items():
        product = weights[name].detach().float() * total
        importance[int(name.split(".")[0])] += product.abs().sum(dtype=torch.float64).item()
    return [value / tokens for value in importance]


def _gradients_so_far(
    path: Path, weights: dict[str, nn.Parameter]
) -> tuple[dict[str, Tensor], int, int]:
    """Return sums of gradients by weight, float32, and the numbers of their batches and tokens."""
    if not intact(path):
        return {k: torch.zeros_like(w, dtype=torch.float32) for k, w in weights.items()}, 0, 0
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    device = str(next(iter(weights.values())).device)
    return load_file(path, device=device), int(metadata["batches"]), int(metadata["tokens"])


def _add_gradients(sums: dict[str, Tensor], model: Any, batch: dict[str, Tensor]) -> None:
    for layer, gradients in layer_gradients(model, batch):
        for name, gradient in gradients.items():
            sums[f"{layer}.{name}"] += gradient
            if not sums[f"{layer}.{name}"].abs().sum().isfinite():
                raise ContractError(
                    f"taylor: the gradient of layer {layer} ({name}) is not finite in"
                    f" {in_type(model.dtype)}"
                )
