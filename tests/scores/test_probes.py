from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from interlace.errors import InputError
from interlace.scores.probes import probe_table, read_probe_table

PROBES = (("nonmath", "caption"), ("native", "native"), ("math", "solve"), ("math", "answer"))


def write_cosines(folder: Path, *tasks: tuple[str, str], part: int = 0) -> Path:
    """Three samples of each (domain, task); their mean on layer l is 0.9 + l / 100."""
    rows = [
        {"domain": domain, "task": task, "first": first, "span": span,
         "cosine": (0.9 + first / 100 + extra) if span == 1 else -1.0}
        for domain, task in tasks
        for extra in (-0.02, 0.0, 0.02)
        for span in (1, 2)
        for first in range(4)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / f"part-{part}.parquet")
    return folder


def test_rows_are_means_of_one_layer_math_first_each_domain_by_name(tmp_path: Path) -> None:
    table = probe_table(write_cosines(tmp_path, *PROBES))
    assert table.column_names == ["task", "domain", "layer", "similarity"]
    assert table["task"].to_pylist()[::4] == ["answer", "solve", "caption"]
    assert table["layer"].to_pylist() == [0, 1, 2, 3] * 3
    assert table["similarity"].to_pylist() == pytest.approx([0.9, 0.91, 0.92, 0.93] * 3)


def test_parts_of_several_processes_are_one_table(tmp_path: Path) -> None:
    write_cosines(tmp_path, ("math", "solve"))
    table = probe_table(write_cosines(tmp_path, ("nonmath", "caption"), part=1))
    assert table["task"].to_pylist() == ["solve"] * 4 + ["caption"] * 4


def test_without_measurements_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no measurements"):
        probe_table(tmp_path)


@pytest.mark.parametrize(("tasks", "rows"), [(PROBES, 12), (PROBES[1:2], 0)])
def test_the_table_is_read_back_as_it_was_written(
    tasks: tuple[tuple[str, str], ...], rows: int, tmp_path: Path
) -> None:
    table = probe_table(write_cosines(tmp_path, *tasks))
    assert table.num_rows == rows
    csv.write_csv(table, tmp_path / "probes.csv")
    assert read_probe_table(tmp_path / "probes.csv").equals(table)
