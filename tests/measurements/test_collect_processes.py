"""Two nodes measure what one process does, also after the death of one of them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import answered_samples
import models
import nodes
import pytest

from interlace.measurements import collect as collect_module
from interlace.samples import windows

pytestmark = pytest.mark.slow
PROGRAM = """
import os, signal, sys
from pathlib import Path

from interlace.system.distributed import process_rank
from interlace.measurements import collect as collect_module
from interlace.samples import windows
from interlace.model.open import open_model, open_processor
from interlace.params.measuring import Collect

folder, model = Path(sys.argv[1]), Path(sys.argv[2])
victim = int(sys.argv[3])  # the node that dies in its third batch
windows.ROWS = 4
measure_batch, calls = collect_module.measure_batch, []

def dying(*args, **kwargs):
    calls.append(args)
    if process_rank() == victim and len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    with open(folder / f"batches-{process_rank()}", "a") as log:
        log.write("batch\\n")
    return measure_batch(*args, **kwargs)

collect_module.measure_batch = dying
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    rows = models.rows(18)
    rows[5]["images"] = [{"bytes": b"no image", "path": None}]
    answered_samples.calibration(folder / "rows", rows)
    (folder / "program.py").write_text(PROGRAM)
    return folder


def launch(out: Path, model: Path, victim: int = -1) -> list[tuple[int, str]]:
    """Collect into a folder on two nodes; return their exit codes and what they printed."""
    out.mkdir(exist_ok=True)
    return nodes.ended(
        nodes.start_nodes([*map(str, (out.parent / "program.py", out, model, victim))])
    )


def alone(out: Path, model: Path) -> None:
    """Collect into a folder with this process alone."""
    out.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", *map(str, (out, model, -1))])
        patch.setattr(windows, "ROWS", windows.ROWS)
        patch.setattr(collect_module, "measure_batch", collect_module.measure_batch)
        runpy.run_path(str(out.parent / "program.py"))


def written(out: Path) -> dict[str, bytes]:
    files = (path for path in sorted((out / "out").rglob("*")) if path.is_file())
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def batches(out: Path) -> int:
    """Batches that any process measured, over all launches."""
    return sum(len(path.read_text().splitlines()) for path in out.glob("batches-*"))


@pytest.fixture(scope="module")
def one(folder: Path, dense_dir: Path) -> Path:
    """The folder that one process collected into."""
    alone(folder / "one", dense_dir)
    return folder / "one"


def test_two_nodes_write_the_bytes_of_one_process(one: Path, dense_dir: Path) -> None:
    two = one.with_name("two")
    assert [code for code, _ in launch(two, dense_dir)] == [0, 0]
    assert written(two) == written(one)
    assert len(written(one)) == 4
    assert all((two / f"batches-{rank}").read_text() for rank in (0, 1))
    assert batches(two) == batches(one)


def test_after_the_first_node_died_one_process_resumes_to_the_same_bytes(
    one: Path, dense_dir: Path
) -> None:
    killed = one.with_name("killed")
    ends = launch(killed, dense_dir, victim=0)
    assert all(code for code, _ in ends), ends
    assert not (killed / "out").exists()
    files = len(list((killed / "scratch").glob("*/batch-*.safetensors")))
    assert files >= 2 and batches(killed) - files <= 1  # the survivor's last one at most
    alone(killed, dense_dir)
    assert written(killed) == written(one)
    assert batches(killed) - batches(one) <= 1
