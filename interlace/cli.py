"""`interlace`: look at what a run made, in the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from interlace.errors import InputError
from interlace.plan import read_plan
from interlace.report.summary import left_out
from interlace.report.terminal import layer_map_text, summary_table


@click.group()
def main() -> None:
    """Look at what a run of the pipeline made."""


@main.command()
def show() -> None:
    """Print the plan and the summary of the workspace's last run."""
    console = Console(highlight=False)
    try:
        console.print(layer_map_text(read_plan(Path("artifacts/plan.json"))))
        summary = _read(Path("metrics/summary.json"))
        evaluations = {
            model: _read(Path(f"artifacts/evaluation/{model}.json"))
            for model in ("dense", "pruned", "tuned")
        }
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    console.print()
    console.print(summary_table(summary, left_out(evaluations)))


def _read(path: Path) -> dict:  # type: ignore[type-arg]
    try:
        value: dict = json.loads(path.read_text(encoding="utf-8"))  # type: ignore[type-arg]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `dvc repro`") from None
    return value
