"""Hidden files are no data; links are followed or named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interlace.errors import InputError
from interlace.sources.files import parquet_files


def written(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_names_that_begin_with_a_dot_or_an_underscore_are_no_data(tmp_path: Path) -> None:
    data = tmp_path / ".cache/data"
    visible = [data / "a/1.parquet", data / "b.parquet/part-0.snappy.parquet"]
    hidden = ("._1.parquet", "_1.parquet", ".ipynb_checkpoints/1.parquet", "_logs/1.parquet")
    written(*visible, *(data / "a" / name for name in hidden), data / "b.parquet/_SUCCESS")
    assert parquet_files(data) == visible


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    written(tmp_path / "else/1.parquet", data / "b.parquet")
    (data / "a").symlink_to(tmp_path / "else")
    (data / "c.parquet").symlink_to("b.parquet")
    names = ["a/1.parquet", "b.parquet", "c.parquet"]
    assert parquet_files(data) == [data / name for name in names]


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a lost file": (lambda at: (at / "x.parquet").symlink_to("/no"), r"x\.parquet: a link to /no,"),
    "a lost folder": (lambda at: (at / "x").symlink_to("/no"), "x: a link to /no,"),
    "a circle": (lambda at: (at / "x").symlink_to(at), "x: a link in a circle"),
    "a pipe": (lambda at: os.mkfifo(at / "x.parquet"), r"x\.parquet: not a regular file"),
    "a name": (
        lambda at: (at / os.fsdecode(b"\xff.parquet")).write_bytes(b"x"),
        "a name that is not UTF-8",
    ),
}


@pytest.mark.parametrize(("make", "complaint"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, make: Callable[[Path], Any], complaint: str
) -> None:
    make(tmp_path)
    with pytest.raises(InputError, match=complaint):
        parquet_files(tmp_path)
