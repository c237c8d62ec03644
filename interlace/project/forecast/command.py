"""`interlace plan-run`: what a run takes of memory, disk and hours, before it begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from interlace.errors import InputError
from interlace.params.whole import read_params
from interlace.report.terminal.console import print_blocks


@click.command("plan-run")
@click.option(
    "--params",
    "file",
    type=click.Path(path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="The parameter file.",
)
@click.option("--card", metavar="NAME", help="GPU to plan for, e.g. H100.  [default: this machine]")
@click.option("--gpus", type=click.IntRange(min=0), help="GPUs in all; 0: the CPU.")
@click.option("--memory", type=float, metavar="GiB", help="Memory of each GPU, or of the machine.")
@click.option("--tflops", type=float, metavar="T", help="Peak of each GPU, or of all cores.")
@click.option("--disk", type=float, metavar="GB", help="Free disk.  [default: this folder's]")
@click.option("--rows", type=click.IntRange(min=1), help="Rows of a data set that is not here.")
@click.option(
    "--measure/--no-measure",
    default=None,
    help="Time a few passes of the model, or none.  [default: where its weights and card are here]",
)
def plan_run(file: Path, rows: int | None, measure: bool | None, **machine: Any) -> None:
    """Say what a run takes, before it begins: memory, disk, tokens and hours by stage.

    Nothing is fetched but the small files of the model, and nothing is written. A run that cannot
    fit is refused, with the parameter that makes it fit.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as stages set it, before torch is imported
    from interlace.project.forecast.forecast import forecast
    from interlace.project.forecast.inputs import read_setting
    from interlace.project.forecast.rates import stated_rates, timed_rates
    from interlace.project.forecast.remedies import refusals
    from interlace.project.forecast.table import forecast_table

    params = read_params(file)
    checkpoint, setting, problems = read_setting(params, rows, machine)
    on_this_machine = not any(machine[name] for name in ("card", "gpus", "tflops"))
    small = 3 * setting.dense.total * 4 < setting.machine.memory
    if measure and setting.fetched:
        raise InputError(f"--measure: the weights of {params.model.id} are not here; leave it")
    if measure or (measure is None and on_this_machine and small and not setting.fetched):
        rates = timed_rates(checkpoint, params.dtype, setting.machine, setting.processes)
    else:
        rates = stated_rates(setting.machine, setting.processes)
    computed = forecast(setting, rates)
    lines = [f"- {sentence}" for sentence in computed.assumptions]
    print_blocks(forecast_table(computed), "", "assumed:", *lines)
    if problems := [*problems, *refusals(setting, computed, rates)]:
        raise InputError("; ".join(problems))
