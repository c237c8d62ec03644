"""`sample`: draw the training set and the calibration set."""

from pathlib import Path

import click

from interlace.params import SampleParams
from interlace.samples import sample
from interlace.sources import parquet_files
from stages.command import command, pinned


@command(SampleParams)
def main(params: SampleParams) -> None:
    """Draw the training rows of every source, and the calibration rows from them."""
    sheet = sample(
        parquet_files(pinned("data")),
        Path("data/train"),
        Path("data/calibration"),
        data=params.data,
        seed=params.seed,
    )
    click.echo(
        f"sample: {sheet.rows} rows of {len(sheet.by_source)} sources"
        f" ({100 * sheet.text_only / sheet.rows:.0f}% text-only), {sheet.calibration} to calibrate"
    )
    for reason, rows in sorted(sheet.left_out.items()):
        click.echo(f"sample: left out {rows} rows: {reason}")


if __name__ == "__main__":
    main()
