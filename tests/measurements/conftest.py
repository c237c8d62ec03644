"""Calibration rows to measure."""

from __future__ import annotations

from pathlib import Path

import answered_samples
import models
import pytest


@pytest.fixture(scope="session")
def provenance() -> dict[str, str]:
    return {"model": "org/name", "revision": "abc", "n_layers": "6", "deepstack_layers": "3"}


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rows with none, one and two images; one prompt alone holds the digit 7."""
    rows = models.rows(12)
    rows[7]["texts"][0]["user"] = "What number is 7"
    return answered_samples.calibration(tmp_path_factory.mktemp("calibration") / "rows", rows)
