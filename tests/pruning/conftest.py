"""The dense checkpoint's weights, a copy of it to change, and calibration rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import answered_samples
import pytest

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.layers import StoredLayers
from interlace.pruning import compensation


@pytest.fixture(scope="session")
def stored(dense_dir: Path) -> StoredLayers:
    return Checkpoint(dense_dir).layers


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rows, every third without an image."""
    return answered_samples.calibration(tmp_path_factory.mktemp("samples") / "calibration")


@pytest.fixture
def copied(dense_dir: Path, tmp_path: Path) -> Path:
    """A copy of the dense checkpoint."""
    return Path(shutil.copytree(dense_dir, tmp_path / "dense"))


@pytest.fixture
def every_map_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out answers get likelier by each fit of a compensation."""
    losses = iter(range(100, 0, -1))
    monkeypatch.setattr(compensation.Repair, "loss", lambda *_: float(next(losses)))
