"""Two real processes measure what one does, and survive the death of one of them."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import models
import pytest

from interlace.measurements import collect as hidden_states
from interlace.measurements import windows
from interlace.samples.rows import write_rows

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, signal, sys
from pathlib import Path

from interlace.measurements import collect as hidden_states, windows
from interlace import distributed as processes
from interlace.model.open import open_processor
from interlace.params.measuring import Collect
from interlace.model.open import open_model

folder, model = Path(sys.argv[1]), Path(sys.argv[2])
# which process dies, after how many batches; below 0: when it has written one window's table
victim, survives = int(sys.argv[3]), int(sys.argv[4])
windows.ROWS = 4
measure, done = hidden_states.measure_batch, 0
write, tables = hidden_states.similarity_table, 0

def measured(*args, **kwargs):
    global done
    if processes.process_rank() == victim and done == survives:
        os.kill(os.getpid(), signal.SIGKILL)
    done += 1
    with open(folder / f"measured-{processes.process_rank()}", "a") as log:
        log.write("batch\\n")
    return measure(*args, **kwargs)

def written(*args, **kwargs):
    global tables
    if survives < 0 and tables == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    tables += 1
    return write(*args, **kwargs)

hidden_states.measure_batch, hidden_states.similarity_table = measured, written
hidden_states.collect(
    open_model(model, dtype="float32"),
    open_processor(model),
    [folder.parent / "rows"],
    folder / "out",
    params=Collect(batch_tokens=70, pooled="all"),
    scratch=folder / "scratch",
    provenance={},
)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    own = {"domain": "native", "task": "native"}
    rows = [row | own | {"sample_id": f"{n:016x}"} for n, row in enumerate(models.rows(18))]
    rows[5]["images"] = [{"bytes": b"no image", "path": None}]
    write_rows(iter(rows), folder / "rows")
    (folder / "program.py").write_text(PROGRAM)
    return folder


def launch(place: Path, model: Path, name: str, victim: int = -1, survives: int = 0) -> int:
    """Collects into a folder of that name with two processes; returns the exit code."""
    (place / name).mkdir(exist_ok=True)
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [place / "program.py", place / name, model, victim, survives]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*started, *map(str, arguments)], env=environment, capture_output=True, timeout=240
    )
    return done.returncode


def alone(place: Path, model: Path, name: str) -> None:
    """Does the same in this process alone."""
    (place / name).mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", *map(str, (place / name, model, -1, 0))])
        patch.setattr(windows, "ROWS", windows.ROWS)
        for name in ("measure_batch", "similarity_table"):
            patch.setattr(hidden_states, name, getattr(hidden_states, name))
        runpy.run_path(str(place / "program.py"))


def written(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted((folder / "out").rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def measured(folder: Path) -> int:
    """Batches that any process measured, over all launches."""
    return sum(len(path.read_text().splitlines()) for path in folder.glob("measured-*"))


@pytest.fixture(scope="module")
def one(place: Path, dense_dir: Path) -> dict[str, bytes]:
    alone(place, dense_dir, "one")
    return written(place / "one")


def test_two_processes_write_the_bytes_of_one(
    place: Path, dense_dir: Path, one: dict[str, bytes]
) -> None:
    assert launch(place, dense_dir, "two") == 0
    assert written(place / "two") == one
    assert len(one) == 3
    shares = [(place / f"two/measured-{rank}").read_text() for rank in (0, 1)]
    assert all(shares) and measured(place / "two") == measured(place / "one")


@pytest.mark.parametrize("victim", [0, 1])
def test_after_a_kill_another_number_of_processes_goes_on_to_the_same_bytes(
    place: Path, dense_dir: Path, one: dict[str, bytes], victim: int
) -> None:
    name = f"killed-{victim}"
    begin = time.monotonic()
    assert launch(place, dense_dir, name, victim=victim, survives=2) != 0
    assert time.monotonic() - begin < 120  # the other one does not wait for ever
    assert not (place / name / "out").exists()
    kept = len(list((place / name / "scratch").glob("*/batch-*.safetensors")))
    assert kept >= 2 and measured(place / name) - kept <= 1  # the survivor's last one at most
    alone(place, dense_dir, name)
    assert written(place / name) == one
    assert measured(place / name) - measured(place / "one") <= 1


def test_after_a_kill_while_the_tables_are_written_nothing_is_measured_again(
    place: Path, dense_dir: Path, one: dict[str, bytes]
) -> None:
    assert launch(place, dense_dir, "unwritten", victim=0, survives=-1) != 0
    assert not (place / "unwritten/out").exists()
    assert (place / "unwritten/.out.partial/similarity").is_dir()
    batches = measured(place / "unwritten")
    alone(place, dense_dir, "unwritten")
    assert written(place / "unwritten") == one
    assert measured(place / "unwritten") == batches == measured(place / "one")
