"""`sample`: draw the training set, the calibration set and the domain probes."""

from pathlib import Path

import click

from interlace.params import SampleParams
from interlace.probes import tasks_to_ask, write_probes
from interlace.samples import sample
from interlace.sources import parquet_files
from stages.command import command, pinned


@command(SampleParams)
def main(params: SampleParams) -> None:
    """Draw the training rows of every source, and from them calibration rows and probes."""
    train, seed, probes = Path("data/train"), params.seed, params.probes
    files = parquet_files(pinned("data"))
    tasks = tasks_to_ask(probes)
    sheet = sample(files, train, Path("data/calibration"), data=params.data, seed=seed)
    made = write_probes(train, Path("data/probes"), tasks, probes=probes, seed=seed)
    click.echo(
        f"sample: {sheet.rows} rows of {len(sheet.by_source)} sources"
        f" ({100 * sheet.text_only / sheet.rows:.0f}% text-only), {sheet.calibration} to calibrate"
    )
    for reason, rows in sorted(sheet.left_out.items()):
        click.echo(f"sample: left out {rows} rows: {reason}")
    click.echo(f"sample: {made} domain probes of {len(tasks)} tasks")


if __name__ == "__main__":
    main()
