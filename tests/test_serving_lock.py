"""requirements.serving.lock is requirements.lock with the transformers and torch of vLLM."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCK, SERVING = "requirements.lock", "requirements.serving.lock"
OTHER = re.compile(r"(torch|torchvision|transformers|triton|nvidia-.*|cuda-.*)$")


def pins(name: str) -> set[str]:
    return set((ROOT / name).read_text(encoding="utf-8").splitlines())


def package(pin: str) -> str:
    return pin.split("==")[0]


def test_only_torch_and_transformers_and_what_torch_needs_differ() -> None:
    differing = {package(pin) for pin in pins(LOCK) ^ pins(SERVING)}
    assert {"torch", "transformers"} <= differing
    assert all(OTHER.match(name) for name in differing)


def test_it_has_what_vllm_and_sglang_accept() -> None:
    assert {"torch==2.14.0", "torchvision==0.29.0", "transformers==5.19.0"} <= pins(SERVING)


@pytest.mark.parametrize("name", [LOCK, SERVING])
def test_pins_are_exact_sorted_once_and_without_addresses(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert lines == sorted(lines)
    assert all("==" in line and "://" not in line for line in lines)


def made(*words: str) -> str:
    """The commands of `make environment`, without running them."""
    outer = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "LOCK")  # `make test LOCK=...`
    inner = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", "--dry-run", "--always-make", "environment", *words]
    run = subprocess.run(command, cwd=ROOT, env=inner, text=True, capture_output=True, check=True)
    return run.stdout


def test_another_lock_has_an_environment_of_its_own() -> None:
    default, other = made(), made(f"LOCK={SERVING}")
    assert 'VENV=".venv" LOCK="requirements.lock"' in default
    assert f'VENV=".scratch/venv-{SERVING}" LOCK="{SERVING}"' in other


def test_the_environment_is_made_of_the_lock_it_is_given(tmp_path: Path) -> None:
    log = tmp_path / "log"
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        'case "$1" in -c) echo 3.11;; -m) mkdir -p "$3/bin"; cp "$0" "$3/bin/pip";;'
        f' *) echo "$@" >> {log};; esac\n'
    )
    python.chmod(0o755)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHON": str(python),
        "VENV": str(tmp_path / "venv"),
        "LOCK": SERVING,
    }
    subprocess.run(["sh", ".ci/environment"], cwd=ROOT, env=environment, check=True)
    assert f"-r {SERVING}" in log.read_text()
