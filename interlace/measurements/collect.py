"""`collect`: how every span of layers changes the states of the calibration set and the probes.

Only per-sample statistics are kept; token-level states never leave the pass. Rows are measured
window by window. Any process can measure any window, to the same numbers; every batch is kept in a
scratch folder once it is done, and the first process makes the dataset of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

import interlace
from interlace.distributed import barrier, process_group, process_rank, world_size
from interlace.errors import ContractError, InputError, way_to_finite
from interlace.measurements.cosines import NotFinite, measure_batch
from interlace.measurements.tables import LEFT_OUT, Parts, pooled_table, similarity_table
from interlace.measurements.windows import (
    Arrays,
    Batches,
    Window,
    batches_left,
    is_measured,
    read,
    read_batches,
    read_measured,
    windows_of,
    write_batch,
    write_batches,
)
from interlace.model import chat
from interlace.model.batches import encode_rows, token_batches
from interlace.model.open import input_device
from interlace.outputs import remove, whole
from interlace.params.measuring import Collect
from interlace.sources.pinned import identity

Row = dict[str, Any]


@dataclass(frozen=True)
class Collected:
    """How many samples were measured, and how many could not be read."""

    measured: int
    left_out: int


def collect(
    model: Any,
    processor: Any,
    folders: Sequence[Path],
    out: Path,
    *,
    params: Collect,
    scratch: Path,
    provenance: dict[str, str],
) -> Collected | None:
    """Measure every calibration sample and probe.

    Under a launcher the processes share the samples, and the first one writes `out`: the same bytes
    as one process alone. A run that was interrupted, anywhere and by anything, goes on behind the
    batches that were finished, with as many processes as there are now.

    Args:
        model: the dense model.
        processor: its processor.
        folders: of rows that `sample` wrote: the calibration set, the probes.
        out: folder to write: `similarity/`, `pooled/` unless no sample's states are kept, and
            `left_out.parquet`.
        params: mode, spans, batch size.
        scratch: folder for finished batches, the same for all processes; must be another one
            whenever inputs or params change.
        provenance: what the files' metadata shall say about the model.

    Returns:
        How many samples there are; nothing from any process but the first.

    Raises:
        InputError: there are no rows, or too many of them cannot be read.
        ContractError: a hidden state is not finite, or too large to be kept, or a process is gone.
    """
    windows = windows_of(folders)
    if not windows:
        places = ", ".join(map(str, folders))
        raise InputError(f"{places}: no rows to measure; run `dvc repro sample`")
    with process_group():
        _measure(model, processor, windows, scratch, params)
    if process_rank() > 0:
        return None
    about = provenance | {
        "mode": params.mode,
        "dtype": _name(model.dtype),
        "attention": str(model.config._attn_implementation),
        "code_version": interlace.__version__,
    }
    with whole(out) as partial:
        found = _write_dataset(windows, scratch, partial, about)
    remove(scratch)
    return found


def _measure(
    model: Any, processor: Any, windows: Sequence[Window], scratch: Path, params: Collect
) -> None:
    """Measure this process's share of what is left, and wait for the others."""
    check_left_out(windows, scratch, params.max_bad)
    left = [window for window in windows if not is_measured(scratch / window.name)]
    barrier()  # nobody begins before all have seen what is left: they share out one list
    mine = left[process_rank() :: world_size()]
    total = sum(window.rows for window in mine)
    with tqdm(total=total, unit="sample", desc="collect", disable=process_rank() > 0) as progress:
        for window, rows in read(mine):
            place = scratch / window.name
            plan = _measure_window(model, processor, rows, place, params, progress)
            if plan.left_out:
                check_left_out(windows, scratch, params.max_bad)
    barrier()


def _measure_window(
    model: Any, processor: Any, rows: list[Row], folder: Path, params: Collect, progress: Any
) -> Batches:
    """Measure the batches of a window that are not in its folder yet."""
    plan, wanted = read_batches(folder), list(range(len(rows)))
    if plan is not None:
        wanted = [i for number in batches_left(folder, plan) for i in plan.batches[number]]
    examples, left_out = encode_rows(processor, {i: rows[i] for i in wanted}, params.max_length)
    if plan is None:
        plan = Batches(token_batches(examples, params.batch_tokens), left_out)
        write_batches(folder, plan)
    progress.update(len(rows) - len(examples))
    pad, device = processor.tokenizer.pad_token_id or 0, input_device(model)
    for number in batches_left(folder, plan):
        group = plan.batches[number]
        batch = chat.collate([examples[i] for i in group], pad_token_id=pad)
        batch = {name: value.to(device) for name, value in batch.items()}
        write_batch(folder, number, _measured(model, batch, group, rows, params))
        progress.update(len(group))
    return plan


def _measured(
    model: Any, batch: chat.Inputs, group: Sequence[int], rows: Sequence[Row], params: Collect
) -> Arrays:
    """A batch's measurements as they are kept, by the numbers of its rows."""
    kept = [place for place, i in enumerate(group) if keeps_pooled(rows[i], params.pooled)]
    try:
        found = measure_batch(model, batch, params.mode, params.max_span, pooled=bool(kept))
    except NotFinite as error:
        dtype = _name(model.dtype)
        raise ContractError(
            f"sample {rows[group[error.row]]['sample_id']}: the {error.side} of layer {error.layer}"
            f" is not finite in {dtype}; {way_to_finite(dtype, 'collect.dtype')}"
        ) from None
    measured: dict[str, NDArray[Any]] = {
        name: found[name].astype(np.int32) for name in ("spans", "counts")
    }
    measured |= {"rows": np.array(group, np.int32), "cosines": found["cosines"].astype(np.float32)}
    if kept:
        measured["pooled_rows"] = measured["rows"][kept]
        measured["pooled"] = halved(found["pooled"][kept], [rows[group[k]] for k in kept])
    return measured


def keeps_pooled(row: Row, asked: str) -> bool:
    """Whether a sample's mean-pooled states are kept, under `collect.pooled`."""
    return asked == "all" or (asked == "probes" and row["domain"] != "native")


def halved(pooled: NDArray[Any], rows: Sequence[Row]) -> NDArray[np.float16]:
    """Mean-pooled states [N, 2, L, d] of N rows as float16.

    Raises:
        ContractError: one is too large.
    """
    large = np.abs(pooled).max((1, 2, 3)) > np.finfo(np.float16).max
    if large.any():
        raise ContractError(
            f"sample {rows[int(large.argmax())]['sample_id']}: a mean-pooled state is too large for"
            " float16; set collect.pooled to none"
        )
    return pooled.astype(np.float16)


def check_left_out(windows: Sequence[Window], scratch: Path, most: int) -> None:
    """Count the rows that no process could read.

    Raises:
        InputError: there are more than `most`; names the first of them.
    """
    plans = ((window, read_batches(scratch / window.name)) for window in windows)
    found = [(window, plan.left_out) for window, plan in plans if plan and plan.left_out]
    count = sum(len(left_out) for _, left_out in found)
    if count > most:
        window, left_out = found[0]
        row, reason = next(iter(left_out.items()))
        about = next(read([window], ["sample_id", "source"]))[1][row]
        raise InputError(
            f"{count} samples cannot be read, more than collect.max_bad = {most}; the first is"
            f" {about['sample_id']} of {about['source']}: {reason}; repair the data, or raise"
            " collect.max_bad: what was measured is kept"
        )


def _write_dataset(
    windows: Sequence[Window], scratch: Path, folder: Path, about: dict[str, str]
) -> Collected:
    """Write the tables of all windows, one window in memory at a time."""
    folder.mkdir()
    measured, left_out = 0, []
    columns = ["sample_id", "domain", "task", "source"]
    with Parts(folder / "similarity", about) as similar, Parts(folder / "pooled", about) as pooled:
        for window, rows in tqdm(
            read(windows, columns), total=len(windows), unit="window", desc="write"
        ):
            place = scratch / window.name
            plan = read_batches(place)
            if plan is None or batches_left(place, plan):
                raise ContractError(
                    f"{place}: not measured whole, and no process is left to do it; all need"
                    " one .scratch folder: put the repository on a shared disk"
                )
            for row, reason in plan.left_out.items():
                left_out.append(rows[row] | {"reason": reason})
            found = read_measured(place, plan)
            if found:
                order, (counts, cosines) = _in_order(found, "rows", ("counts", "cosines"))
                chosen = [rows[i] for i in order]
                similar.write(similarity_table(chosen, counts, found[0]["spans"], cosines))
                measured += len(chosen)
            if kept := [batch for batch in found if "pooled" in batch]:
                order, (states,) = _in_order(kept, "pooled_rows", ("pooled",))
                pooled.write(pooled_table([rows[i] for i in order], states))
    if not measured:
        raise InputError(f"none of {len(left_out)} samples can be read: {left_out[0]['reason']}")
    table = pa.Table.from_pylist(left_out, schema=LEFT_OUT.with_metadata(about))
    pq.write_table(table, folder / "left_out.parquet")
    return Collected(measured, len(left_out))


def _in_order(
    batches: Sequence[Arrays], key: str, names: Sequence[str]
) -> tuple[list[int], list[NDArray[Any]]]:
    """Rows of several batches in ascending order, and arrays in the same order."""
    numbers = np.concatenate([batch[key] for batch in batches])
    order = np.argsort(numbers)
    arrays = [np.concatenate([batch[name] for batch in batches])[order] for name in names]
    return numbers[order].tolist(), arrays


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def provenance_of(pinned: dict[str, Any]) -> dict[str, str]:
    """What measurements say about the model they were made on, from its pinned source."""
    return identity(pinned) | {
        "n_layers": str(pinned["n_layers"]),
        "deepstack_layers": str(pinned["deepstack_layers"]),
    }
