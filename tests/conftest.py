"""Tiny models, built once and shared by all tests. Nothing here may use a network."""

from __future__ import annotations

import os

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "DO_NOT_TRACK": "1"}
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models, and one process per core

from pathlib import Path
from typing import Any

import pytest

LAYERS = 6


@pytest.fixture(scope="session")
def dense_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Qwen3-VL of six decoder layers, visual features added after the first three."""
    import models

    return models.tiny_qwen3_vl(tmp_path_factory.mktemp("dense"), layers=LAYERS)


@pytest.fixture(scope="session")
def dense(dense_dir: Path) -> Any:
    """That model, opened; tests must leave it as it is."""
    from interlace.model.open import open_model

    return open_model(dense_dir, dtype="float32")


@pytest.fixture(scope="session")
def processor(dense_dir: Path) -> Any:
    from interlace.model.open import open_processor

    return open_processor(dense_dir)
