"""The tests marked gpu."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.setting import Figure, Result, Setting

ROOT = Path(__file__).parents[2]
MARK = "pytest.mark.gpu"


def checking(setting: Setting) -> Iterator[Result]:
    """Run the tests marked gpu; modules without one are not imported.

    Raises:
        RuntimeError: some fail.
    """
    modules = sorted((ROOT / "tests").rglob("test_*.py"))
    marked = [str(path) for path in modules if MARK in path.read_text(encoding="utf-8")]
    mark = "gpu" if setting.device == "cuda" else "gpu and not gpu"  # none without a card
    options = ["-m", mark, "-q", "-rs", "-p", "no:cacheprovider", "--durations=5"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *marked],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    sys.stderr.write(ended.stdout)
    count = ended.stdout.strip().splitlines()[-1].strip("= ")
    if ended.returncode not in (0, 5):  # 5: no test ran
        raise RuntimeError(f"tests marked gpu: {count}")
    reasons = re.findall(r"^SKIPPED \[\d+\] \S+ (.*)", ended.stdout, re.MULTILINE)
    yield Result([Figure("tests marked gpu", count, "; ".join(sorted(set(reasons))))])
