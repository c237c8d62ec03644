"""Collect a number of the demo's samples, and say how long the work took and how much memory.

    python -m benchmarks.collect_work FOLDER

`FOLDER/calibration` holds the samples. Under torchrun the processes share them. The first process
prints a line of JSON: `loading` until all processes are ready, `work` from then until the dataset
is in place, seconds, and its `peak` resident size, MiB.
"""

from __future__ import annotations

import json
import time

BEGIN = time.perf_counter()

from itertools import cycle, islice  # noqa: E402
from pathlib import Path  # noqa: E402

import click  # noqa: E402

from benchmarks.peak_memory import peak_mib  # noqa: E402
from interlace.distributed import barrier, process_rank  # noqa: E402
from interlace.measurements import collect as collect_module  # noqa: E402
from interlace.model.open import open_model, open_processor  # noqa: E402
from interlace.params.measuring import Collect  # noqa: E402
from interlace.samples.rows import iterate, write_rows  # noqa: E402

DEMO, CALIBRATION = Path("data/demo/model"), Path("data/calibration")


def write_calibration(folder: Path, count: int) -> None:
    """Write calibration samples of the demo, repeated until there are enough."""
    rows = islice(cycle(list(iterate(CALIBRATION))), count)
    numbered = (row | {"sample_id": f"{number:016x}"} for number, row in enumerate(rows))
    write_rows(numbered, folder / "calibration")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Collect, and print what it took."""
    ready: list[float] = []

    def noted_barrier() -> None:
        barrier()
        ready.append(time.perf_counter())

    collect_module.barrier = noted_barrier  # the first one: all processes have loaded the model
    collect_module.collect(
        open_model(DEMO, dtype="float32"),
        open_processor(DEMO),
        [folder / "calibration"],
        folder / "hidden_states",
        params=Collect(batch_tokens=4096, pooled="all"),
        scratch=folder / "scratch",
        provenance={},
    )
    if process_rank() == 0:
        took = {"loading": ready[0] - BEGIN, "work": time.perf_counter() - ready[0]}
        click.echo(json.dumps(took | {"peak": peak_mib()}))


if __name__ == "__main__":
    main()
