"""`ttft`: time the dense and the tuned model side by side."""

from itertools import islice
from pathlib import Path

import click

from interlace.latency import measure
from interlace.outputs import write_json
from interlace.params import TtftParams
from interlace.samples import iterate
from interlace.sources import model_folder
from stages.command import command, pinned


@command(TtftParams)
def main(params: TtftParams) -> None:
    """Time to first token of the dense and the tuned model, request by request in turn."""
    model = pinned("model")
    with_images = (row for row in iterate(Path("data/calibration")) if row["images"])
    measured = measure(
        model_folder(model),
        Path("artifacts/tuned"),
        list(islice(with_images, 16 * params.ttft.requests)),
        params=params.ttft,
        seed=params.seed,
        trust_remote_code=model["trust_remote_code"],
    )
    write_json(Path("metrics/ttft.json"), measured)
    click.echo(
        f"ttft: {measured['ttft_speedup']:.2f}x"
        f" ({measured['ttft_speedup_low']:.2f} to {measured['ttft_speedup_high']:.2f}),"
        f" ideal {measured['ttft_ideal']:.2f}x"
    )


if __name__ == "__main__":
    main()
