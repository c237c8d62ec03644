"""Two real processes measure what one does, and survive the death of one of them."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import answered_samples
import pytest

from interlace.measurements import collect as collect_module
from interlace.measurements import windows
from interlace.samples.rows import iterate, write_rows

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, signal, sys
from pathlib import Path

from interlace.distributed import process_rank
from interlace.measurements import collect as collect_module, windows
from interlace.model.open import open_model, open_processor
from interlace.params.measuring import Collect

folder, model = Path(sys.argv[1]), Path(sys.argv[2])
# which process dies, in the call after how many of which function
victim, name, survives = int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
windows.ROWS = 4

def dying(name, survives):
    function, calls = getattr(collect_module, name), 0

    def call(*args, **kwargs):
        nonlocal calls
        if process_rank() == victim and calls == survives:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        with open(folder / f"{name}-{process_rank()}", "a") as log:
            log.write("call\\n")
        return function(*args, **kwargs)

    setattr(collect_module, name, call)

for each in ("measure_batch", "similarity_table"):
    dying(each, survives if each == name else -1)
collect_module.collect(
    open_model(model, dtype="float32"),
    open_processor(model),
    [folder.parent / "rows"],
    folder / "out",
    params=Collect(batch_tokens=70, pooled="all"),
    scratch=folder / "scratch",
    provenance={},
)
"""
ALONE = (-1, "", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    rows = list(iterate(answered_samples.calibration(folder / "whole", 18)))
    rows[5]["images"] = [{"bytes": b"no image", "path": None}]
    write_rows(iter(rows), folder / "rows")
    (folder / "program.py").write_text(PROGRAM)
    return folder


def launch(out: Path, model: Path, victim: int = -1, name: str = "", survives: int = 0) -> int:
    """Collect into a folder with two processes; return the exit code."""
    out.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = map(str, (out.parent / "program.py", out, model, victim, name, survives))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *launcher, *arguments], env=environment, capture_output=True, timeout=240
    ).returncode


def alone(out: Path, model: Path) -> None:
    """Collect into a folder with this process alone."""
    out.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", *map(str, (out, model, *ALONE))])
        patch.setattr(windows, "ROWS", windows.ROWS)
        for name in ("measure_batch", "similarity_table"):
            patch.setattr(collect_module, name, getattr(collect_module, name))
        runpy.run_path(str(out.parent / "program.py"))


def written(out: Path) -> dict[str, bytes]:
    files = (path for path in sorted((out / "out").rglob("*")) if path.is_file())
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def batches(out: Path) -> int:
    """Batches that any process measured, over all launches."""
    return sum(len(path.read_text().splitlines()) for path in out.glob("measure_batch-*"))


@pytest.fixture(scope="module")
def one(folder: Path, dense_dir: Path) -> Path:
    """The folder that one process collected into."""
    alone(folder / "one", dense_dir)
    return folder / "one"


def test_two_processes_write_the_bytes_of_one(one: Path, dense_dir: Path) -> None:
    two = one.with_name("two")
    assert launch(two, dense_dir) == 0
    assert written(two) == written(one)
    assert len(written(one)) == 3
    assert all((two / f"measure_batch-{rank}").read_text() for rank in (0, 1))
    assert batches(two) == batches(one)


@pytest.mark.parametrize("victim", [0, 1])
def test_after_a_kill_another_number_of_processes_resumes_to_the_same_bytes(
    one: Path, dense_dir: Path, victim: int
) -> None:
    killed = one.with_name(f"killed-{victim}")
    begin = time.monotonic()
    assert launch(killed, dense_dir, victim, "measure_batch", survives=2) != 0
    assert time.monotonic() - begin < 120  # the other one does not wait for ever
    assert not (killed / "out").exists()
    files = len(list((killed / "scratch").glob("*/batch-*.safetensors")))
    assert files >= 2 and batches(killed) - files <= 1  # the survivor's last one at most
    alone(killed, dense_dir)
    assert written(killed) == written(one)
    assert batches(killed) - batches(one) <= 1


def test_after_a_kill_while_the_tables_are_written_nothing_is_measured_again(
    one: Path, dense_dir: Path
) -> None:
    killed = one.with_name("unwritten")
    assert launch(killed, dense_dir, 0, "similarity_table", survives=1) != 0
    assert not (killed / "out").exists()
    assert (killed / ".out.partial/similarity").is_dir()
    alone(killed, dense_dir)
    assert written(killed) == written(one)
    assert batches(killed) == batches(one)
