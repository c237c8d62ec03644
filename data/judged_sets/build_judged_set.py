"""Write a set of open questions for `evaluate.judged` from a data set on this machine.

    python data/judged_sets/build_judged_set.py numinamath NuminaMath-CoT/ numinamath.parquet

The domain-aware paper (arXiv 2603.20275) judges answers on held-out rows of LLaVA-OneVision, on
NuminaMath-CoT with its problems shown as images, and on a set that is not public; any other file in
FineVision's schema can replace the third.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm
from typeset import typeset

from interlace.errors import InputError
from interlace.samples import rows as samples
from interlace.samples.order import shuffle_key
from interlace.sources.files import parquet_files
from interlace.system.outputs import whole

SCHEMA = pa.schema(
    [
        ("images", pa.list_(samples.IMAGE)),
        ("texts", pa.list_(samples.TURN)),
        ("source", pa.string()),
    ]
)
INSTRUCTION = "Solve the problem in the image. Give the final result at the end."
PLACEHOLDER = "<image>"
ROW_GROUP = 256  # rows

Row = dict[str, Any]
Position = tuple[int, int]  # file, row


@dataclass(frozen=True)
class DataSet:
    """A data set that can be converted to open questions.

    Attributes:
        name: of the benchmark, as the paper writes it.
        columns: that `convert` reads.
        convert: a row -> images and turns; None where it has no question that can be shown.
    """

    name: str
    columns: tuple[str, ...]
    convert: Callable[[Row], Row | None]


def convert_numina_math(row: Row) -> Row | None:
    """Convert a row of AI-MO/NuminaMath-CoT: show the problem as an image."""
    if not (row["problem"] or "").strip() or not (row["solution"] or "").strip():
        return None
    file = io.BytesIO()
    typeset(row["problem"]).save(file, "PNG")
    turns = [{"user": INSTRUCTION, "assistant": row["solution"]}]
    return {"images": [{"bytes": file.getvalue(), "path": None}], "texts": turns}


def convert_llava_onevision(row: Row) -> Row | None:
    """Convert a row of lmms-lab/LLaVA-OneVision-Data: drop the placeholder of the image."""
    messages = row["conversations"] or []
    pairs = list(zip(messages[::2], messages[1::2], strict=False))
    turns = [
        {"user": user["value"].replace(PLACEHOLDER, "").strip(), "assistant": answer["value"]}
        for user, answer in pairs
        if (user["from"], answer["from"]) == ("human", "gpt")
    ]
    complete = all(turn["user"] and turn["assistant"].strip() for turn in turns)
    if not turns or len(turns) < len(pairs) or not complete:
        return None
    return {"images": [row["image"]] if row["image"] else [], "texts": turns}


DATA_SETS = {
    "numinamath": DataSet("NuminaMath", ("problem", "solution"), convert_numina_math),
    "llava-onevision": DataSet(
        "LLaVA-OneVision", ("image", "conversations"), convert_llava_onevision
    ),
}


def build_judged_set(name: str, source: Path, out: Path, *, rows: int, seed: int = 0) -> int:
    """Draw rows of a data set and write them as open questions in FineVision's schema.

    Args:
        name: key of `DATA_SETS`.
        source: Parquet file, or a folder of them.
        out: the Parquet file to write.
        rows: number of questions; fewer if fewer rows can be converted.
        seed: of the draw, which takes the rows with the lowest hash of seed, file and row.

    Returns:
        The number of questions.

    Raises:
        InputError: there is no such data, a column is missing, or no row can be converted.
    """
    data_set = DATA_SETS[name]
    files = [source] if source.is_file() else parquet_files(source) if source.is_dir() else []
    if not files:
        raise InputError(f"{source}: no such .parquet file, and no folder that holds one")
    order = sorted(_positions(files, data_set), key=lambda position: shuffle_key(seed, *position))
    questions: list[Row] = []
    with tqdm(total=min(rows, len(order)), desc=name, unit="question") as progress:
        for row in _read_rows(files, data_set, order, batch_rows=rows):
            question = data_set.convert(row)
            if question is not None:
                questions.append(question | {"source": data_set.name})
                progress.update()
            if len(questions) == rows:
                break
    if not questions:
        raise InputError(f"{source}: no row holds a question and its answer")
    with whole(out) as partial:
        table = pa.Table.from_pylist(questions, schema=SCHEMA)
        pq.write_table(table, partial, row_group_size=ROW_GROUP)
    return len(questions)


def _positions(files: Sequence[Path], data_set: DataSet) -> Iterator[Position]:
    """Position of each row; checks the columns of each file."""
    for number, path in enumerate(files):
        try:
            metadata = pq.read_metadata(path)
        except (pa.ArrowInvalid, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: not a Parquet file: {reason}") from None
        names = metadata.schema.to_arrow_schema().names
        if missing := [column for column in data_set.columns if column not in names]:
            raise InputError(
                f"{path}: not {data_set.name}'s data: column {missing[0]!r} is missing"
            )
        yield from ((number, row) for row in range(metadata.num_rows))


def _read_rows(
    files: Sequence[Path], data_set: DataSet, order: Sequence[Position], batch_rows: int
) -> Iterator[Row]:
    """Rows in the given order, read in batches."""
    for start in range(0, len(order), batch_rows):
        batch = order[start : start + batch_rows]
        rows_by_file: dict[int, set[int]] = {}
        for number, row in batch:
            rows_by_file.setdefault(number, set()).add(row)
        values: Mapping[Position, Row] = {
            (number, row): value
            for number, rows in rows_by_file.items()
            for row, value in _read_file(files[number], data_set, rows)
        }
        yield from (values[position] for position in batch)


def _read_file(path: Path, data_set: DataSet, rows: set[int]) -> Iterator[tuple[int, Row]]:
    """Rows of one file by number; reads each row group that holds one of them once."""
    start = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if in_group := [row for row in sorted(rows) if start <= row < end]:
                table = file.read_row_group(group, columns=list(data_set.columns))
                values = table.take([row - start for row in in_group]).to_pylist()
                yield from zip(in_group, values, strict=True)
            start = end


@click.command()
@click.argument("name", type=click.Choice(list(DATA_SETS)))
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--rows", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(name: str, source: Path, out: Path, rows: int, seed: int) -> None:
    """Write OUT, for evaluate.judged, from the Parquet files of a data set in SOURCE."""
    try:
        questions = build_judged_set(name, source, out, rows=rows, seed=seed)
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    click.echo(f"{out}: {questions} questions")


if __name__ == "__main__":
    main()
