from __future__ import annotations

from pathlib import Path

import pytest
from drawn_rows import Draw, three_subsets

from interlace.data import draw as drawing


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Draws that hardly wait before they try again."""
    monkeypatch.setattr(drawing, "WAITS", (0.01, 0.01))
    return Draw(tmp_path / "out")


@pytest.fixture
def subsets(tmp_path: Path) -> Path:
    return three_subsets(tmp_path / "data")
