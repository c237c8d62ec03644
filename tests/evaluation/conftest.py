from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from models import tiny_qwen3_vl

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.evaluation.run.isolation import isolated
from interlace.samples.rows import IMAGE, TURN


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(tiny_qwen3_vl(tmp_path_factory.mktemp("model"), layers=2))


@pytest.fixture
def lmms_eval() -> Iterator[None]:
    with isolated(offline=True):
        yield


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows to a file in FineVision's schema, and returns its path."""

    def write(rows: list[dict[str, Any]], name: str = "heldout.parquet") -> Path:
        columns = {"images": pa.list_(IMAGE), "texts": pa.list_(TURN), "source": pa.string()}
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(columns)), tmp_path / name)
        return tmp_path / name

    return write
