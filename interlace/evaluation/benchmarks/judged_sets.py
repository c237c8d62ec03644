"""Sets of open questions for a judge (`evaluate.judged`), made of data sets on this machine.

The domain-aware paper (arXiv 2603.20275) judges answers on held-out rows of LLaVA-OneVision, on
NuminaMath-CoT with its problems shown as images, and on a set that is not public; any other file in
FineVision's schema takes the place of the third as it is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from interlace.errors import InputError
from interlace.outputs import whole
from interlace.samples import rows as samples
from interlace.samples.order import shuffle_key

SCHEMA = pa.schema(
    [
        ("images", pa.list_(samples.IMAGE)),
        ("texts", pa.list_(samples.TURN)),
        ("source", pa.string()),
    ]
)
SHOWN = "Solve the problem in the image. Give the final result at the end."
PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class JudgedSet:
    """A data set that can be turned into open questions.

    Attributes:
        name: the benchmark, as the paper writes it.
        columns: of its rows.
        convert: a row -> images and turns; none where it asks nothing that can be shown.
    """

    name: str
    columns: tuple[str, ...]
    convert: Callable[[dict[str, Any]], dict[str, Any] | None]


def numina_math(row: dict[str, Any]) -> dict[str, Any] | None:
    """AI-MO/NuminaMath-CoT: the problem becomes an image, the solution the true answer."""
    from interlace.evaluation.benchmarks.typeset import typeset

    if not (row["problem"] or "").strip() or not (row["solution"] or "").strip():
        return None
    file = io.BytesIO()
    typeset(row["problem"]).save(file, "PNG")
    turns = [{"user": SHOWN, "assistant": row["solution"]}]
    return {"images": [{"bytes": file.getvalue(), "path": None}], "texts": turns}


def llava_onevision(row: dict[str, Any]) -> dict[str, Any] | None:
    """lmms-lab/LLaVA-OneVision-Data: its conversation without the placeholder of the image."""
    said = row["conversations"] or []
    pairs = list(zip(said[::2], said[1::2], strict=False))
    turns = [
        {"user": asked["value"].replace(PLACEHOLDER, "").strip(), "assistant": answer["value"]}
        for asked, answer in pairs
        if (asked["from"], answer["from"]) == ("human", "gpt")
    ]
    whole_turns = all(turn["user"] and turn["assistant"].strip() for turn in turns)
    if not turns or len(turns) < len(pairs) or not whole_turns:
        return None
    return {"images": [row["image"]] if row["image"] else [], "texts": turns}


SETS = {
    "numinamath": JudgedSet("NuminaMath", ("problem", "solution"), numina_math),
    "llava-onevision": JudgedSet("LLaVA-OneVision", ("image", "conversations"), llava_onevision),
}


def make_judged_set(name: str, source: Path, out: Path, *, rows: int, seed: int = 0) -> int:
    """Draw rows of a data set and write them as open questions in FineVision's schema.

    Args:
        name: one of `SETS`.
        source: Parquet file, or a folder of them.
        out: the Parquet file to write.
        rows: how many; fewer if there are fewer that can be asked.
        seed: of the draw: the rows whose hash of seed, file and place rank lowest.

    Returns:
        How many were written.

    Raises:
        InputError: there is no such data, a column is missing, or no row can be asked.
    """
    kind = SETS[name]
    files = [source] if source.is_file() else sorted(source.rglob("*.parquet"))
    if not files:
        raise InputError(f"{source}: no such .parquet file, and no folder that holds one")
    places = sorted(_places(files, kind, source), key=lambda place: shuffle_key(seed, *place))
    made: list[dict[str, Any]] = []
    with tqdm(total=min(rows, len(places)), desc=name, unit="question") as progress:
        for row in _rows(files, kind, places, ahead=rows):
            converted = kind.convert(row)
            if converted is not None:
                made.append(converted | {"source": kind.name})
                progress.update()
            if len(made) == rows:
                break
    if not made:
        raise InputError(f"{source}: no row holds a question and its answer")
    with whole(out) as partial:
        pq.write_table(pa.Table.from_pylist(made, schema=SCHEMA), partial, row_group_size=256)
    return len(made)


def _places(files: list[Path], kind: JudgedSet, source: Path) -> Iterator[tuple[int, int]]:
    """(File, row) of every row; checks the columns of every file."""
    for number, path in enumerate(files):
        try:
            metadata = pq.read_metadata(path)
        except (pa.ArrowInvalid, OSError) as error:
            said = " ".join(str(error).split())
            raise InputError(f"{path}: not a Parquet file: {said}") from None
        names = metadata.schema.to_arrow_schema().names
        if missing := [column for column in kind.columns if column not in names]:
            raise InputError(f"{path}: not {kind.name}'s data: column {missing[0]!r} is missing")
        yield from ((number, row) for row in range(metadata.num_rows))


def _rows(
    files: list[Path], kind: JudgedSet, places: list[tuple[int, int]], ahead: int
) -> Iterator[dict[str, Any]]:
    """Rows in the order of `places`, of which `ahead` are read at a time."""
    for start in range(0, len(places), ahead):
        some = places[start : start + ahead]
        wanted: dict[int, set[int]] = {}
        for number, row in some:
            wanted.setdefault(number, set()).add(row)
        found = {
            (number, row): values
            for number, rows in wanted.items()
            for row, values in _file_rows(files[number], kind, rows)
        }
        yield from (found[place] for place in some)


def _file_rows(path: Path, kind: JudgedSet, rows: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of one file by their place; each row group that holds one is read once."""
    start = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if here := [row for row in sorted(rows) if start <= row < end]:
                table = file.read_row_group(group, columns=list(kind.columns))
                kept = table.take([row - start for row in here]).to_pylist()
                yield from zip(here, kept, strict=True)
            start = end
