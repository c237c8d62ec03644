"""The check of a run's data before any long work: columns, and no images for text-only models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from interlace.data.files import data_files
from interlace.data.probes import DOMAINS, sources_of, unknown_source
from interlace.data.subsets import check_subsets, selected_subsets
from interlace.errors import InputError
from interlace.params.answers import ENDPOINT, ServedDense
from interlace.params.whole import Params
from interlace.samples.own_answers import read_answer_sheet
from interlace.samples.parquet import file_tables, read_schema
from interlace.sources.endpoint import Endpoint
from interlace.sources.pinned import PinnedData, PinnedModel
from interlace.sources.served import check_served, warn_of_plain_http
from interlace.system.resumable import keep_json, read_digests


def check_data(
    params: Params, model: PinnedModel, data: PinnedData, answers: Path, *, checked: Path
) -> None:
    """Check the training data's columns, and refuse images for a model that takes text alone.

    Where an endpoint is to answer the training prompts, check that it serves the model.

    Args:
        params: all parameters.
        model: as `pin_model` returns it.
        data: the training data, as `pin_data` returns it.
        answers: folder of the dense model's answers; with those of the endpoint, it is not asked.
        checked: folder for the digests of files that passed earlier.

    Raises:
        InputError: names the parameter, the subset, or the file and the column or row.
    """
    check_subsets(data, params.data, checked=checked / "subsets.json")
    _check_probe_sources(params, data)
    if not model.takes_images:
        _check_text_only(params, model, data, checked / "text_only.json")
    if params.answers.endpoint.url is not None:
        _check_endpoint(params.answers.endpoint, answers)


def _check_probe_sources(params: Params, data: PinnedData) -> None:
    """Refuse sources of probes that local training data do not have, before rows are drawn."""
    probes = params.probes
    if not probes.per_task or data.files is None:
        return
    present: set[str] = set()
    for subset in selected_subsets(data_files(data), params.data):
        present.add(subset.name)  # rows without a source have this one
        for file in map(Path, (file.location for file in subset.files)):
            columns = {"source"} & set(read_schema(file).names)
            for table in file_tables(file, list(columns)) if columns else ():
                present |= {str(source) for source in pc.unique(table["source"]).to_pylist()}
                if present.issuperset((*probes.math_sources, *probes.nonmath_sources)):
                    return
    for domain in DOMAINS:
        for source in sources_of(probes, domain):
            if source not in present:
                raise unknown_source(domain, source, f"data.id = {data.id}", present)


def _check_endpoint(served: ServedDense, answers: Path) -> None:
    check_served(served, ENDPOINT)
    warn_of_plain_http(served, ENDPOINT)
    try:
        answered = read_answer_sheet(answers).model == served.model  # it may be gone by now
    except InputError:  # not there, or damaged
        answered = False
    if not answered:
        Endpoint(served, ENDPOINT).check_serves()


def _check_text_only(params: Params, model: PinnedModel, data: PinnedData, checked: Path) -> None:
    _refuse_requests(params, model.model_type)
    for field, file in [("heldout", params.evaluate.heldout)] + [
        ("judged", file) for file in params.evaluate.judged
    ]:
        if file and Path(file).is_file():  # if not, the evaluation's own check says so
            _refuse_rows(Path(file), model.model_type, f"remove such rows from evaluate.{field}")
    if params.data.max_images:
        _check_training(params, model.model_type, data, checked)


def _refuse_requests(params: Params, model_type: str) -> None:
    """Refuse parameters that ask about images."""
    requests = {
        "probes.per_task": (params.probes.per_task, "0, with a method that needs no probes"),
        "evaluate.benchmarks": (params.evaluate.benchmarks, "[], and evaluate.heldout"),
        "ttft.shapes": (params.ttft.shapes, "[], to time rows of the data"),
    }
    for field, (value, remedy) in requests.items():
        if value:
            values = ", ".join(value) if isinstance(value, tuple) else value
            raise InputError(
                f"{field} = {values}: asks about images, and {model_type} takes text alone; set it"
                f" to {remedy}"
            )


def _check_training(params: Params, model_type: str, data: PinnedData, checked: Path) -> None:
    """Refuse local training rows with images, and rows of the hub unless images are skipped."""
    remedy = "set data.max_images to 0, which skips such rows"
    if data.files is None:
        raise InputError(
            f"data.id = {data.id}: rows of the hub are seen when they are drawn, and {model_type}"
            f" takes text alone; {remedy}"
        )
    digests = read_digests(checked)
    for subset in selected_subsets(data_files(data), params.data):
        for file in subset.files:
            if file.digest not in digests:
                _refuse_rows(Path(file.location), model_type, remedy)
                digests.add(file.digest)
                keep_json(checked, sorted(digests))


def _refuse_rows(path: Path, model_type: str, remedy: str) -> None:
    """Refuse a file with a row that has an image.

    Raises:
        InputError: names the file and the row.
    """
    begin = 0
    for images in _image_counts(path):
        if (row := pc.index(pc.greater(images, 0), True).as_py()) >= 0:
            raise InputError(
                f"{path}: row {begin + row} has an image, and {model_type} takes text alone;"
                f" {remedy}, or choose a vision-language model"
            )
        begin += len(images)


def _image_counts(path: Path) -> Iterator[pa.ChunkedArray]:
    """Yield the number of images of each row, a few rows at a time."""
    names = read_schema(path).names
    column = next((name for name in ("images", "image") if name in names), None)
    for table in file_tables(path, [column]) if column else ():
        values = table[column]
        listed = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
        yield pc.fill_null(
            pc.list_value_length(values) if listed else pc.cast(pc.is_valid(values), pa.int32()), 0
        )
