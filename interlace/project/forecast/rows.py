"""The rows that `sample` will draw: counted where they are here, or assumed."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.data.call_rows import Draw, draw_rows
from interlace.data.files import data_files
from interlace.data.probes import tasks_to_ask
from interlace.data.row_groups import outline
from interlace.data.subsets import selected_subsets
from interlace.data.systematic import rows_to_draw
from interlace.errors import InputError
from interlace.params.inputs import FINEVISION, Data
from interlace.params.whole import Params
from interlace.project.forecast.encoded import encoded_facts
from interlace.project.forecast.row_facts import PIXELS, RowFacts, Spread
from interlace.project.forecast.sizes import Patch
from interlace.samples.parquet import row_count
from interlace.samples.rows import iterate
from interlace.sources.files import checked_file, parquet_files
from interlace.sources.pin import looks_local
from interlace.sources.pinned import PinnedData, PinnedFile
from interlace.system.work import work_root

TRAIN = Path("data/train")  # of an earlier `sample`
COUNTED = 64  # rows that are encoded
FINEVISION_ROWS = 24_300_000  # by its card, as answer tokens, images and bytes of a row
ANSWER, IMAGES, ROW_BYTES = 400, 0.7, 206_000
QUESTION = 100  # tokens, nobody's count


def row_facts(params: Params, checkpoint: Checkpoint, patch: Patch, total: int | None) -> RowFacts:
    """Count the rows that `sample` will draw, and the tokens of a few of them.

    Args:
        params: all parameters.
        checkpoint: its processor encodes the rows, if it is there.
        patch: of the model's vision tower.
        total: rows of a data set that is not here; `None`: FineVision's own number.

    Raises:
        InputError: rows that are not here to be counted, and no number of them.
    """
    if looks_local(params.data.id):
        facts = _local(params, checkpoint, patch)
    elif any(TRAIN.glob("*.parquet")):
        facts = _drawn(checkpoint, patch)
    else:
        facts = _assumed(params, patch, total)
    calibration = max(1, int(params.data.calibration_fraction * facts.train))
    probes = params.probes.per_task * len(tasks_to_ask(params.probes))
    return replace(facts, calibration=calibration, probes=probes)


def _local(params: Params, checkpoint: Checkpoint, patch: Patch) -> RowFacts:
    """Count local rows by the ends of their files; draw a few as `sample` does."""
    data = _listed(params.data.id)
    with work_root(None) as root:
        train, all_rows, size = _counts(data, params.data, root)
        draw = Draw(COUNTED, params.seed, with_images=checkpoint.architecture.takes_images)
        rows = list(islice(iterate(draw_rows(data, draw, root / "rows", root)), COUNTED))
    facts = encoded_facts(rows, checkpoint, patch)
    return replace(facts, train=train, row_bytes=size / max(1, all_rows))


def _counts(data: PinnedData, params: Data, root: Path) -> tuple[int, int, int]:
    """Return the rows to draw, those there are, and their bytes."""
    train = rows = size = 0
    for subset in selected_subsets(data_files(data), params):
        groups = outline(subset, root / "outlines").groups
        subset_rows = sum(group.rows for group in groups)
        share = min(1.0, params.share * params.weights.get(subset.name, 1.0))
        train += rows_to_draw(subset_rows, share)
        rows, size = rows + subset_rows, size + sum(group.size for group in groups)
    return train, rows, size


def _drawn(checkpoint: Checkpoint, patch: Patch) -> RowFacts:
    """Count the rows of an earlier `sample`."""
    files = list(TRAIN.glob("*.parquet"))
    train = sum(map(row_count, files))
    facts = encoded_facts(list(islice(iterate(TRAIN), COUNTED)), checkpoint, patch)
    size = sum(file.stat().st_size for file in files)
    return replace(facts, train=train, row_bytes=size / max(1, train))


def _assumed(params: Params, patch: Patch, total: int | None) -> RowFacts:
    """Assume rows as FineVision's card describes them on average, and the longest that may be.

    Raises:
        InputError: another data set, whose number of rows is not given.
    """
    if total is None and params.data.id != FINEVISION:
        raise InputError(
            f"data.id = {params.data.id}: its rows are not here to be counted; give their number"
            " with --rows"
        )
    train = rows_to_draw(FINEVISION_ROWS if total is None else total, params.data.share)
    longest = float(max(params.measure.max_length, params.finetune.max_length))
    image = PIXELS / patch.pixels if patch.pixels else float(patch.fixed)
    images = IMAGES if patch.width else 0
    note = (
        f"{params.data.id} is not here: {train:,} rows of {ANSWER} answer tokens, {QUESTION} of"
        f" questions and {images} images of {PIXELS:,} pixels, as FineVision's card has it but for"
        " questions and pixels; the longest row is as long as max_length allows"
    )
    return RowFacts(
        text=Spread(ANSWER + QUESTION, longest),
        prompt=Spread(QUESTION, longest),
        answers=ANSWER,
        images=Spread(images, params.data.max_images if images else 0),
        image=Spread(image, image),
        notes=(note,),
        train=train,
        row_bytes=ROW_BYTES,
    )


def _listed(source: str) -> PinnedData:
    """List the files of a local data set, as `pin` does, without their hashes.

    Raises:
        InputError: there are none.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(f"data.id = {source}: no such file or folder")
    files = parquet_files(path) if path.is_dir() else [checked_file(path)]
    if not files:
        raise InputError(f"data.id = {source}: no .parquet file in this folder")
    root = path.parent if path.is_file() else path
    sizes = {file.relative_to(root).as_posix(): file.stat().st_size for file in files}
    records = {name: PinnedFile(size=size, sha256="") for name, size in sizes.items()}
    return PinnedData(id=source, files=records)
