"""Threads spin for less than a time slice, unless the environment says how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages import SPINS, bound_spinning

ROOT = Path(__file__).parents[2]
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize("name", WAITING)
def test_waiting_that_the_environment_sets_holds(name: str) -> None:
    environment = {name: "passive"}
    bound_spinning(environment)
    assert environment == {name: "passive"}


def test_spinning_is_bounded_before_torch_is_loaded() -> None:
    code = "import os, sys, stages; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == f"{SPINS} False\n"
