"""The demo's data and model are those that its scripts, as they are, have built."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from interlace.system.documents import read_yaml

DEMO = Path(__file__).parents[2] / "data/demo"
STAGES = read_yaml(DEMO / "dvc.lock")["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_files_are_those_of_the_lock(stage: str) -> None:
    """After a change that leaves the outputs alone: `dvc commit -f data/demo/dvc.yaml`."""
    for entry in (*STAGES[stage]["deps"], *STAGES[stage]["outs"]):
        if not entry["md5"].endswith(".dir"):
            content = (DEMO / entry["path"]).read_bytes()
            assert hashlib.md5(content).hexdigest() == entry["md5"], entry["path"]
