"""`collect`: how much each span of layers changes the states of calibration rows and probes.

Only per-sample statistics are kept; token-level states never leave the pass. Rows are measured
window by window. Any process can measure any window, to the same numbers. Each batch is kept in a
scratch folder once it is measured, and the first process writes the dataset from these.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

import interlace
from interlace.errors import ContractError, InputError, MissingInputError, way_to_finite
from interlace.measurements.batch_files import (
    Arrays,
    WindowBatches,
    is_complete,
    pending_batches,
    read_batches,
    read_measurements,
    write_batch,
    write_batches,
)
from interlace.measurements.cosines import NotFinite, measure_batch
from interlace.measurements.tables import (
    LEFT_OUT,
    Parts,
    pooled_table,
    similarity_table,
    sinks_table,
)
from interlace.model.batches import encode_rows, token_batches
from interlace.model.chat import Inputs, collate
from interlace.model.open import input_device
from interlace.model.prefetch import automatic_workers, one_ahead, prefetched
from interlace.params.measuring import Collect
from interlace.samples.windows import Window, read_windows, windows_of
from interlace.sources.pinned import PinnedModel
from interlace.system.distributed import barrier, process_group, process_rank, world_size
from interlace.system.outputs import remove, whole

Row = dict[str, Any]


@dataclass(frozen=True)
class Collected:
    """The number of measured samples, and of those skipped because they cannot be read."""

    samples: int
    skipped: int


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
    """Measure all calibration samples and probes.

    Under a launcher the processes share the samples, and the first one writes `out`: the same bytes
    as one process alone. An interrupted run resumes after the last finished batches, with any
    number of processes.

    Args:
        model: the dense model.
        processor: its processor.
        folders: of rows that `sample` wrote: the calibration set, the probes.
        out: folder to write: `similarity/`, `sinks/`, `pooled/` unless no sample's states are kept,
            and `left_out.parquet`.
        params: mode, spans, batch size.
        scratch: folder for finished batches, the same for all processes; must be another one
            whenever inputs or params change.
        provenance: the files' metadata about the model.

    Returns:
        The number of samples; `None` in all processes but the first.

    Raises:
        InputError: there are no rows, or too many of them cannot be read.
        ContractError: a hidden state is not finite, or too large to be kept, or a process is gone.
    """
    windows = windows_of(folders)
    if not windows:
        raise MissingInputError(folders[0], "no rows to measure")
    with process_group():
        _measure_share(model, processor, windows, scratch, params)
    if process_rank() > 0:
        return None
    metadata = provenance | {
        "mode": params.mode,
        "dtype": _name(model.dtype),
        "attention": str(model.config._attn_implementation),
        "code_version": interlace.__version__,
    }
    if params.mode == "reference":  # the published code's are in the model's dtype
        metadata["cosine_dtype"] = "float32"
    with whole(out) as partial:
        collected = _write_dataset(windows, scratch, partial, metadata)
    remove(scratch)
    return collected


def _measure_share(
    model: Any, processor: Any, windows: Sequence[Window], scratch: Path, params: Collect
) -> None:
    """Measure this process's share of the pending windows, and wait for the other processes."""
    check_skipped(windows, scratch, params.max_bad)
    pending = [window for window in windows if not is_complete(scratch / window.name)]
    barrier()  # all processes see the same pending windows before one of them finishes any
    share = pending[process_rank() :: world_size()]
    total = sum(window.rows for window in share)
    with tqdm(total=total, unit="sample", desc="collect", disable=process_rank() > 0) as progress:
        batches = _ready_batches(model, processor, windows, share, scratch, params)
        with closing(one_ahead(batches, automatic_workers(params.workers) > 0)) as ready:
            for batch in ready:
                arrays = _arrays(model, batch.inputs, batch.group, batch.rows, params)
                write_batch(batch.folder, batch.number, arrays)
                progress.update(len(batch.group))
        progress.update(total - progress.n)  # rows that are skipped, or were measured before
    barrier()


@dataclass
class _Encoded:
    """A window and the inputs of its rows that are not measured yet.

    Attributes:
        window: of rows.
        rows: all of them.
        numbers: those that are not measured.
        examples: inputs by number, as far as they are encoded.
        skipped: the reasons of those that cannot be read, by number.
    """

    window: Window
    rows: list[Row]
    numbers: list[int]
    examples: dict[int, Inputs] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)


def _encoded_windows(
    processor: Any, windows: Sequence[Window], scratch: Path, params: Collect
) -> Iterator[_Encoded]:
    """Yield windows with encoded rows; the next ones are encoded while a window is measured.

    Args:
        processor: of the model.
        windows: with rows that are not measured yet.
        scratch: folder of finished batches.
        params: longest prompt, and workers.
    """
    ahead: deque[_Encoded] = deque()

    def tasks() -> Iterator[tuple[int, Row]]:
        for window, rows in read_windows(windows):
            numbers = _unmeasured(scratch / window.name, len(rows))
            ahead.append(_Encoded(window, rows, numbers))
            for number in numbers:
                yield number, rows[number]

    encoded = prefetched(
        lambda task: encode_rows(processor, dict([task]), params.max_length),
        tasks(),
        workers=automatic_workers(params.workers),
        name=lambda task: f"sample {task[1]['sample_id']} of {task[1]['source']}",
        setting="measure.workers",
    )
    with closing(encoded):
        for examples, skipped in encoded:
            current = ahead[0]
            current.examples |= examples
            current.skipped |= skipped
            if len(current.examples) + len(current.skipped) == len(current.numbers):
                yield ahead.popleft()


def _unmeasured(folder: Path, rows: int) -> list[int]:
    """Return the rows of a window that are in no measured batch, in the order of batches."""
    batches = read_batches(folder)
    if batches is None:
        return list(range(rows))
    return [i for n in pending_batches(folder, batches) for i in batches.batches[n]]


class _Batch(NamedTuple):
    """A batch that is ready to be measured.

    Attributes:
        folder: of its window's finished batches.
        number: of the batch in its window.
        group: the window's rows that are in it, by number.
        rows: all of the window.
        inputs: of the model.
    """

    folder: Path
    number: int
    group: Sequence[int]
    rows: list[Row]
    inputs: Inputs


def _ready_batches(
    model: Any,
    processor: Any,
    windows: Sequence[Window],
    share: Sequence[Window],
    scratch: Path,
    params: Collect,
) -> Iterator[_Batch]:
    """Yield the batches that are not measured yet, on the model's device.

    Args:
        model: that measures.
        processor: its processor.
        windows: of all processes.
        share: windows of this process.
        scratch: folder of finished batches.
        params: longest prompt, batch size, workers.

    Raises:
        InputError: too many rows cannot be read.
    """
    pad, device = processor.tokenizer.pad_token_id or 0, input_device(model)
    for encoded in _encoded_windows(processor, share, scratch, params):
        folder, examples = scratch / encoded.window.name, encoded.examples
        batches = read_batches(folder)
        if batches is None:
            groups = token_batches(examples, params.batch_tokens)
            batches = WindowBatches(groups, encoded.skipped)
            write_batches(folder, batches)
        if batches.skipped:
            check_skipped(windows, scratch, params.max_bad)
        for number in pending_batches(folder, batches):
            group = batches.batches[number]
            inputs = collate([examples.pop(i) for i in group], pad_token_id=pad)
            inputs = {name: value.to(device) for name, value in inputs.items()}
            yield _Batch(folder, number, group, encoded.rows, inputs)


def _arrays(
    model: Any, batch: Inputs, group: Sequence[int], rows: Sequence[Row], params: Collect
) -> Arrays:
    """Measure a batch; return its statistics as they are stored, with the numbers of its rows."""
    pooled = [n for n, i in enumerate(group) if keeps_pooled(rows[i], params.pooled)]
    try:
        measurements = measure_batch(model, batch, params, pooled=bool(pooled))
    except NotFinite as error:
        dtype = _name(model.dtype)
        raise ContractError(
            f"sample {rows[group[error.row]]['sample_id']}: the {error.side} of layer {error.layer}"
            f" is not finite in {dtype}; {way_to_finite(dtype, 'dtype')}"
        ) from None
    arrays: dict[str, NDArray[Any]] = {
        name: measurements[name].astype(np.int32) for name in ("spans", "counts", "largest")
    }
    arrays["rows"] = np.array(group, np.int32)
    arrays |= {name: measurements[name].astype(np.float32) for name in ("cosines", "sinks")}
    if pooled:
        arrays["pooled_rows"] = arrays["rows"][pooled]
        arrays["pooled"] = halved(measurements["pooled"][pooled], [rows[group[n]] for n in pooled])
    return arrays


def keeps_pooled(row: Row, pooled: str) -> bool:
    """Return True if `collect.pooled` keeps a row's mean-pooled states."""
    return pooled == "all" or (pooled == "probes" and row["domain"] != "native")


def halved(pooled: NDArray[Any], rows: Sequence[Row]) -> NDArray[np.float16]:
    """Convert mean-pooled states [N, 2, L, d] of N rows to float16.

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


def check_skipped(windows: Sequence[Window], scratch: Path, most: int) -> None:
    """Count the rows that no process could read.

    Raises:
        InputError: there are more than `most`; names the first of them.
    """
    by_window = ((window, read_batches(scratch / window.name)) for window in windows)
    skipped = [(window, batches.skipped) for window, batches in by_window if batches]
    count = sum(len(reasons) for _, reasons in skipped)
    if count > most:
        window, reasons = next(pair for pair in skipped if pair[1])
        number, reason = next(iter(reasons.items()))
        row = next(read_windows([window], ["sample_id", "source"]))[1][number]
        raise InputError(
            f"{count} samples cannot be read, more than collect.max_bad = {most}; the first is"
            f" {row['sample_id']} of {row['source']}: {reason}; repair the data, raise"
            " measure.max_length for long prompts, or raise collect.max_bad: finished measurements"
            " are kept"
        )


def _write_dataset(
    windows: Sequence[Window], scratch: Path, out: Path, metadata: dict[str, str]
) -> Collected:
    """Write the tables of all windows, one window in memory at a time."""
    out.mkdir()
    samples, skipped = 0, []
    columns = ["sample_id", "domain", "task", "source"]
    with (
        Parts(out / "similarity", metadata) as similar,
        Parts(out / "sinks", metadata) as sinks,
        Parts(out / "pooled", metadata) as pooled,
    ):
        for window, rows in tqdm(
            read_windows(windows, columns), total=len(windows), unit="window", desc="write"
        ):
            batches = _complete_batches(scratch / window.name)
            skipped += [rows[i] | {"reason": reason} for i, reason in batches.skipped.items()]
            measurements = read_measurements(scratch / window.name, batches)
            if measurements:
                names = "counts", "cosines", "sinks", "largest"
                order, (counts, cosines, *tokens) = _in_order(measurements, "rows", names)
                spans, ordered = measurements[0]["spans"], [rows[i] for i in order]
                similar.write(similarity_table(ordered, counts, spans, cosines))
                sinks.write(sinks_table(ordered, *tokens))
                samples += len(order)
            if with_states := [batch for batch in measurements if "pooled" in batch]:
                order, (states,) = _in_order(with_states, "pooled_rows", ("pooled",))
                pooled.write(pooled_table([rows[i] for i in order], states))
    if not samples:
        raise InputError(
            f"none of {len(skipped)} samples can be read: {skipped[0]['reason']}; repair the data,"
            " or raise measure.max_length for long prompts"
        )
    table = pa.Table.from_pylist(skipped, schema=LEFT_OUT.with_metadata(metadata))
    pq.write_table(table, out / "left_out.parquet")
    return Collected(samples, len(skipped))


def _complete_batches(folder: Path) -> WindowBatches:
    batches = read_batches(folder)
    if batches is None or pending_batches(folder, batches):
        raise ContractError(
            f"{folder}: not all batches are measured, and no process is left to measure them; all"
            " processes need one .scratch folder: put the repository on a shared disk"
        )
    return batches


def _in_order(
    batches: Sequence[Arrays], key: str, names: Sequence[str]
) -> tuple[list[int], list[NDArray[Any]]]:
    """Join batches; return the row numbers in ascending order, and arrays in the same order."""
    numbers = np.concatenate([batch[key] for batch in batches])
    order = np.argsort(numbers)
    arrays = [np.concatenate([batch[name] for batch in batches])[order] for name in names]
    return numbers[order].tolist(), arrays


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def provenance_of(pinned: PinnedModel) -> dict[str, str]:
    """Return the metadata of measurements about their model, from its pinned source."""
    kinds = pinned.layer_kinds
    return (
        pinned.identity()
        | {"n_layers": str(pinned.n_layers), "deepstack_layers": str(pinned.deepstack_layers)}
        | ({"layer_kinds": kinds.model_dump_json()} if kinds else {})
    )
