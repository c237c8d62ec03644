"""Where a benchmark's rows are on this machine. No torch and no lmms-eval here.

One folder (`evaluate.data`) holds the benchmarks by name: `AI2D.parquet`, or a folder `AI2D` as it
is downloaded from the hub. Names are matched without case and punctuation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import Benchmark
from interlace.params.evaluating import key


def benchmark_files(folder: Path, benchmark: Benchmark) -> list[Path]:
    """The Parquet files of a benchmark's rows, checked.

    Raises:
        InputError: they are not there, or lack a column that the benchmark's task reads.
    """
    place = local_place(folder, benchmark)
    files = split_files(place, configuration=benchmark.configuration, split=benchmark.split)
    check_columns(files, benchmark)
    return files


def local_place(folder: Path, benchmark: Benchmark) -> Path:
    """The file or folder that holds a benchmark.

    Raises:
        InputError: there is none; it names what is looked for.
    """
    if not folder.is_dir():
        raise InputError(f"evaluate.data = {folder}: no such folder")
    for place in sorted(folder.iterdir()):
        name = place.name.removesuffix(".parquet")
        if key(name) == key(benchmark.name) and (place.is_dir() or place.suffix == ".parquet"):
            return place
    raise InputError(
        f"evaluate.data = {folder}: holds no {benchmark.name}.parquet and no folder"
        f" {benchmark.name}; download the data set into such a folder, or leave {benchmark.name}"
        " out of evaluate.benchmarks"
    )


def split_files(place: Path, *, configuration: str | None, split: str) -> list[Path]:
    """The Parquet files of one split of a downloaded data set.

    Args:
        place: a Parquet file, which is taken as it is, or a folder in the hub's layout.
        configuration: the data set's configuration ("ScienceQA-FULL"), if it has several.
        split: "test", "validation", ...

    Raises:
        InputError: no file belongs to that split.
    """
    if place.is_file():
        return [place]
    found = _files_by_card(place, configuration, split) or _files_by_name(
        place, configuration, split
    )
    if not found:
        asked = f"split {split!r}" + (f" of {configuration!r}" if configuration else "")
        raise InputError(f"{place}: no .parquet file of {asked} in it; download the data set again")
    return found


def _files_by_card(folder: Path, configuration: str | None, split: str) -> list[Path]:
    """As the data set's card (README.md) says; nothing where it says nothing."""
    card = folder / "README.md"
    parts = card.read_text(encoding="utf-8").split("---\n") if card.is_file() else []
    try:
        said = yaml.safe_load(parts[1]) if len(parts) > 2 else {}
    except yaml.YAMLError:
        return []
    configs = said.get("configs") if isinstance(said, dict) else None
    patterns: list[str] = []
    for config in configs if isinstance(configs, list) else []:
        if configuration in (None, config.get("config_name")):
            patterns += _patterns(config.get("data_files"), split)
    files = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in files if path.suffix == ".parquet")


def _patterns(data_files: Any, split: str) -> list[str]:
    entries = [entry for entry in data_files or () if isinstance(entry, dict)]
    paths = [entry.get("path") for entry in entries if entry.get("split") == split]
    return [one for path in paths for one in (path if isinstance(path, list) else [path]) if one]


def _files_by_name(folder: Path, configuration: str | None, split: str) -> list[Path]:
    """By the name that the hub gives files: [data/ or CONFIGURATION/]SPLIT-00000-of-00001."""
    found = []
    for path in sorted(folder.rglob("*.parquet")):
        if split not in (path.stem, path.stem.split("-")[0], path.parent.name):
            continue
        if configuration in (None, *path.relative_to(folder).parts) or path.parent in (
            folder,
            folder / "data",
        ):
            found.append(path)
    exact = [path for path in found if configuration in path.relative_to(folder).parts]
    return exact or found


def check_columns(files: list[Path], benchmark: Benchmark) -> None:
    """Refuse files that lack a column that the benchmark's task reads.

    Raises:
        InputError: names the file and the columns.
    """
    for path in files:
        try:
            names = pq.read_schema(path).names
        except (pa.ArrowInvalid, OSError) as error:
            said = " ".join(str(error).split())
            raise InputError(f"{path}: not a Parquet file: {said}") from None
        missing = [column for column in benchmark.columns if column not in names]
        if missing:
            raise InputError(
                f"{path}: not {benchmark.name}'s data: column {', '.join(map(repr, missing))} is"
                " missing; download the data set again"
            )
