"""The local files of a benchmark's rows. No torch and no lmms-eval here.

One folder (`evaluate.data`) holds the benchmarks by name: `AI2D.parquet`, or a folder `AI2D` as
downloaded from the hub. Case and punctuation of names do not count.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS, Benchmark
from interlace.params.evaluating import key
from interlace.samples.columns import check_column
from interlace.samples.parquet import read_schema
from interlace.samples.rows import IMAGE
from interlace.sources.files import checked_file, is_data, is_hidden, parquet_files
from interlace.system.documents import card_metadata

_TEXT = (pa.string(),)
_TYPES = dict.fromkeys(("question", "instruction", "text"), _TEXT)  # of columns with one type alone


def benchmark_files(folder: Path, benchmark: Benchmark) -> list[Path]:
    """Find and check the Parquet files of a benchmark.

    Raises:
        InputError: they are missing, or lack a column that the benchmark's task reads.
    """
    path = benchmark_path(folder, benchmark)
    files = split_files(path, configuration=benchmark.configuration, split=benchmark.split)
    check_columns(files, benchmark)
    return files


def benchmark_path(folder: Path, benchmark: Benchmark) -> Path:
    """Find the file or folder that holds a benchmark; a variant may share that of the original.

    Raises:
        InputError: there is none; the message names what is expected.
    """
    if not folder.is_dir():
        raise InputError(f"evaluate.data = {folder}: no such folder")
    paths = sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    original = BENCHMARKS[benchmark.published]
    same_rows = original.configuration == benchmark.configuration
    for name in dict.fromkeys([benchmark.name, *([original.name] if benchmark.hub_id else [])]):
        one_file = name == benchmark.name or same_rows
        for path in paths:
            fits = path.is_dir() or (one_file and path.suffix == ".parquet")
            if fits and key(path.name.removesuffix(".parquet")) == key(name):
                return path
    raise InputError(
        f"evaluate.data = {folder}: holds no {benchmark.name}.parquet and no folder"
        f" {benchmark.name}; download the data set into such a folder, or remove"
        f" {benchmark.name} from evaluate.benchmarks"
    )


def split_files(path: Path, *, configuration: str | None, split: str) -> list[Path]:
    """List the Parquet files of one split of a downloaded data set.

    Args:
        path: a Parquet file, which is the split, or a folder in the hub's layout.
        configuration: the data set's configuration ("ScienceQA-FULL"), if it has several.
        split: "test", "validation", ...

    Raises:
        InputError: no file belongs to that split.
    """
    if path.is_file():
        return [path]
    files = _files_by_card(path, configuration, split) or _files_by_name(path, configuration, split)
    if not files:
        name = f"split {split!r}" + (f" of {configuration!r}" if configuration else "")
        raise InputError(f"{path}: holds no .parquet file of {name}; download the data set again")
    return files


def _files_by_card(folder: Path, configuration: str | None, split: str) -> list[Path]:
    """Files that the data set's card (README.md) lists; empty if it lists none."""
    configs = card_metadata(folder / "README.md").get("configs")
    patterns: list[str] = []
    for config in configs if isinstance(configs, list) else []:
        if isinstance(config, dict) and configuration in (None, config.get("config_name")):
            patterns += _patterns(config.get("data_files"), split)
    files = {path for pattern in patterns for path in folder.glob(pattern)}
    names = (path.relative_to(folder).as_posix() for path in files)
    return sorted(checked_file(folder / name) for name in names if is_data(name))


def _patterns(data_files: Any, split: str) -> list[str]:
    listed = data_files if isinstance(data_files, list) else []
    entries = [entry for entry in listed if isinstance(entry, dict)]
    paths = [entry.get("path") for entry in entries if entry.get("split") == split]
    patterns = [item for path in paths for item in (path if isinstance(path, list) else [path])]
    return [pattern for pattern in patterns if isinstance(pattern, str) and _is_below(pattern)]


def _is_below(pattern: str) -> bool:
    """Return true for a pattern of files below the folder that it is used in."""
    path = PurePosixPath(pattern)
    return path.parts != () and not path.is_absolute() and ".." not in path.parts


def _files_by_name(folder: Path, configuration: str | None, split: str) -> list[Path]:
    """Files with the hub's names: [data/ or CONFIGURATION/]SPLIT-00000-of-00001."""
    files = []
    for path in parquet_files(folder):
        if split not in (path.stem, path.stem.split("-")[0], path.parent.name):
            continue
        if configuration in (None, *path.relative_to(folder).parts) or path.parent in (
            folder,
            folder / "data",
        ):
            files.append(path)
    exact = [path for path in files if configuration in path.relative_to(folder).parts]
    return exact or files


def check_columns(files: list[Path], benchmark: Benchmark) -> None:
    """Refuse files that lack a column that the benchmark's task reads.

    Raises:
        InputError: the message names the file and the columns.
    """
    for path in files:
        schema = read_schema(path)
        missing = [column for column in benchmark.columns if column not in schema.names]
        if missing:
            raise InputError(
                f"{path}: not {benchmark.name}'s data: column {', '.join(map(repr, missing))} is"
                " missing; download the data set again"
            )
        base64 = benchmark.folder == "hrbench"
        types = _TYPES | {"image": _TEXT if base64 else (IMAGE, pa.list_(IMAGE))}
        for column in benchmark.columns:
            check_column(schema, column, types.get(column, ()), str(path))
