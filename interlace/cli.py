"""`interlace`: look at what a run made, in the terminal."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from interlace.errors import InputError
from interlace.plan import read_plan
from interlace.report.summary import left_out
from interlace.report.table import summary_table
from interlace.report.terminal import layer_map_text
from interlace.report.write import read_evaluations, read_json


@click.group()
def main() -> None:
    """Look at what a run of the pipeline made."""


@main.command()
def show() -> None:
    """Print the plan and the summary of the workspace's last run."""
    try:
        layers = layer_map_text(read_plan(Path("artifacts/plan.json")))
        missing = left_out(read_evaluations(Path("artifacts/evaluation")))
        summary = summary_table(read_json(Path("metrics/summary.json")), missing)
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    console = Console(highlight=False)
    console.print(layers, "", summary, sep="\n")


if __name__ == "__main__":
    main()
