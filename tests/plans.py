"""Plans for the model of six layers, and the contents of checkpoints."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from interlace.plan.record import Plan, Shortfall

PREFIX = "model.language_model.layers"


def make_plan(drop: list[int], tune: list[int], n_layers: int = 6) -> Plan:
    return Plan(
        method="interlace",
        ratio=0.25,
        n_layers=n_layers,
        drop=drop,
        tune=tune,
        freeze=[i for i in range(n_layers) if i not in drop + tune],
        groups=[],
        protected=[],
        shortfall=Shortfall(policy="pairs", wanted=len(drop), triplets=0, pairs=0, missing=0),
        sources={},
    )


PLAN = make_plan([3, 5], [2, 4])


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a folder."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name."""
    files = folder.glob("*.safetensors")
    return {name: value for path in files for name, value in load_file(path).items()}


def printed(code: str, folder: Path) -> str:
    """What a fresh Python prints that runs some code in a folder."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
