from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation.heldout_schema import SCHEMA
from models import tiny_qwen3_vl

from interlace.evaluation.run.isolation import isolated


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen3_vl(tmp_path_factory.mktemp("model"), layers=2)


@pytest.fixture
def lmms_eval() -> Iterator[None]:
    with isolated(offline=True):
        yield


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: list[dict[str, Any]], name: str = "heldout.parquet") -> Path:
        path = tmp_path / name
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
        return path

    return write
