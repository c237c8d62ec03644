"""`ttft`: time the dense and the tuned model side by side."""

from pathlib import Path

from interlace.errors import MissingInputError
from interlace.params.timing import TtftParams
from interlace.printable import say
from interlace.speed.compare import compare_checkpoints, speedup_line
from interlace.speed.requests import timed_rows
from interlace.speed.served import time_servers
from interlace.speed.served_summary import served_line, served_metrics
from interlace.system.outputs import write_json
from interlace.system.resumable import content_digest

from .command import command, kept_folder, pinned

CALIBRATION = Path("data/calibration")


@command(TtftParams)
def main(params: TtftParams) -> None:
    """Time to first token of the dense and the tuned model, request by request in turn."""
    model, tuned = pinned().model, Path("artifacts/tuned")
    if not tuned.is_dir():
        raise MissingInputError(tuned, "no such folder")
    dense, options = model.checkpoint(), params.ttft
    pair = (dense, dense.at(tuned))
    rows = timed_rows(CALIBRATION, options.requests, with_images=model.takes_images)
    logs = kept_folder("served") / "ttft"
    served = time_servers(*pair, rows, params=options, seed=params.seed, logs=logs)
    times = compare_checkpoints(*pair, rows, params=options, seed=params.seed, dtype=params.dtype)
    if served:
        times |= served_metrics(served, times, options, params.seed)
    write_json(Path("metrics/ttft.json"), times | {"weights": content_digest(tuned)})
    say(f"ttft: {speedup_line(times)}")
    if served:
        say(f"ttft: served by {options.engine}: {served_line(times)}")


if __name__ == "__main__":
    main()
