"""Collect samples of the demo, and print the time and memory of the work.

    python -m benchmarks.collect_work FOLDER

`FOLDER/calibration` holds the samples. Under torchrun the processes share them. The first process
prints a line of JSON: `loading`, seconds until all processes are ready; `work`, seconds from then
until the dataset is written; `peak`, its largest resident size, MiB.
"""

from __future__ import annotations

import json
import time

BEGIN = time.perf_counter()

from itertools import cycle, islice  # noqa: E402
from pathlib import Path  # noqa: E402

import click  # noqa: E402

from benchmarks.peak_memory import peak_mib  # noqa: E402
from interlace.measurements import collect as collect_module  # noqa: E402
from interlace.model.open import open_model, open_processor  # noqa: E402
from interlace.params.measuring import Collect  # noqa: E402
from interlace.samples.rows import iterate, write_rows  # noqa: E402
from interlace.system.distributed import barrier, process_rank  # noqa: E402

DEMO, CALIBRATION = Path("data/demo/model"), Path("data/calibration")


def write_calibration(folder: Path, count: int) -> None:
    """Write `count` calibration samples of the demo, repeated if it has fewer."""
    rows = islice(cycle(list(iterate(CALIBRATION))), count)
    numbered = (row | {"sample_id": f"{number:016x}"} for number, row in enumerate(rows))
    write_rows(numbered, folder / "calibration")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Collect, and print time and memory."""
    ready: list[float] = []

    def recording_barrier() -> None:
        barrier()
        ready.append(time.perf_counter())

    collect_module.barrier = recording_barrier  # the first one: all processes have loaded the model
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
        seconds = {"loading": ready[0] - BEGIN, "work": time.perf_counter() - ready[0]}
        click.echo(json.dumps(seconds | {"peak": peak_mib()}))


if __name__ == "__main__":
    main()
