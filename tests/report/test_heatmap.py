from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import csv

from interlace.errors import InputError
from interlace.report.figures.probes import probe_heatmap
from interlace.scores.probes import probe_table, read_probe_table


def measured(folder: Path, *tasks: tuple[str, str], part: int = 0) -> Path:
    """Three samples of each (domain, task); their mean on layer l is 0.9 + l / 100."""
    rows = [
        {"domain": domain, "task": task, "first": first, "span": span,
         "cosine": (0.9 + first / 100 + extra) if span == 1 else -1.0}
        for domain, task in tasks
        for extra in (-0.02, 0.0, 0.02)
        for span in (1, 2)
        for first in range(4)
    ]  # fmt: skip
    columns = {"domain": pa.string(), "task": pa.string(), "first": pa.int32(),
               "span": pa.int32(), "cosine": pa.float32()}  # fmt: skip
    folder.mkdir(exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=pa.schema(columns))
    pq.write_table(table, folder / f"part-{part}.parquet")
    return folder


PROBES = (("nonmath", "caption"), ("native", "native"), ("math", "solve"), ("math", "answer"))


def test_rows_are_means_of_one_layer_math_first_each_domain_by_name(tmp_path: Path) -> None:
    table = probe_table(measured(tmp_path / "s", *PROBES))
    assert table.column_names == ["task", "domain", "layer", "similarity"]
    assert table["task"].to_pylist()[::4] == ["answer", "solve", "caption"]
    assert table["layer"].to_pylist() == [0, 1, 2, 3] * 3
    assert table["similarity"].to_pylist() == pytest.approx([0.9, 0.91, 0.92, 0.93] * 3)


def test_parts_of_several_processes_are_one_table(tmp_path: Path) -> None:
    folder = measured(tmp_path / "s", ("math", "solve"))
    measured(folder, ("nonmath", "caption"), part=1)
    assert probe_table(folder)["task"].to_pylist() == ["solve"] * 4 + ["caption"] * 4


def test_without_probes_the_table_is_empty_and_the_figure_says_so(tmp_path: Path) -> None:
    folder = measured(tmp_path / "s", ("native", "native"))
    assert probe_table(folder).num_rows == 0
    probe_heatmap(probe_table(folder), tmp_path / "map.svg")
    assert (tmp_path / "map.svg").exists()


def test_without_measurements_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no measurements"):
        probe_table(tmp_path)


@pytest.mark.parametrize("tasks", [PROBES, PROBES[1:2]])
def test_the_table_is_read_back_as_it_was_written(
    tasks: tuple[tuple[str, str], ...], tmp_path: Path
) -> None:
    table = probe_table(measured(tmp_path / "s", *tasks))
    csv.write_csv(table, tmp_path / "probes.csv")
    assert read_probe_table(tmp_path / "probes.csv").equals(table)


def test_redundant_layers_are_darker(tmp_path: Path) -> None:
    probe_heatmap(probe_table(measured(tmp_path / "s", ("math", "solve"))), tmp_path / "map.png")
    grey = np.asarray(Image.open(tmp_path / "map.png").convert("L")).astype(int)
    row = grey[grey.shape[0] // 2, : grey.shape[1] * 3 // 4]  # through the cells, short of the bar
    cells = [int(v) for v in row[row != 255]]
    steps = [v for v, last in zip(cells[1:], cells, strict=False) if v == last]  # inside a cell
    shades = list(dict.fromkeys(steps))
    assert shades[-4:] == sorted(shades[-4:], reverse=True) and len(shades) >= 4
