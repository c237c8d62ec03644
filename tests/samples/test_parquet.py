"""Damaged Parquet files are named, also where pyarrow does not raise."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interlace.errors import InputError
from interlace.samples.parquet import check_footers


def test_a_footer_that_ends_the_process_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    pq.write_table(pa.table({"a": [1]}), good)
    bad.write_bytes(good.read_bytes())
    read = pq.read_metadata

    def read_or_die(path: Path) -> pq.FileMetaData:
        if path == bad:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path)

    monkeypatch.setattr(pq, "read_metadata", read_or_die)
    check_footers([good])
    with pytest.raises(InputError, match=f"^{bad}: not a readable Parquet file: .* SIGKILL"):
        check_footers([good, bad, good])
