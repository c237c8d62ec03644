"""`ttft`: time the dense and the tuned model side by side."""

from pathlib import Path

from interlace.errors import MissingInputError
from interlace.params.timing import TtftParams
from interlace.printable import say
from interlace.speed.compare import compare_checkpoints, speedup_line
from interlace.speed.requests import timed_rows
from interlace.system.outputs import write_json
from stages.command import command, pinned

CALIBRATION = Path("data/calibration")


@command(TtftParams)
def main(params: TtftParams) -> None:
    """Time to first token of the dense and the tuned model, request by request in turn."""
    model, tuned = pinned().model, Path("artifacts/tuned")
    if not tuned.is_dir():
        raise MissingInputError(tuned, "no such folder")
    dense = model.checkpoint()
    times = compare_checkpoints(
        dense,
        dense.at(tuned),
        timed_rows(CALIBRATION, params.ttft.requests, with_images=model.takes_images),
        params=params.ttft,
        seed=params.seed,
        dtype=params.dtype,
    )
    write_json(Path("metrics/ttft.json"), times)
    say(f"ttft: {speedup_line(times)}")


if __name__ == "__main__":
    main()
