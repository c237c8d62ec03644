"""Parameters that make a run fit: each is tried, by computing again with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

from interlace.errors import InputError
from interlace.params.section import validated
from interlace.params.whole import Params
from interlace.project.forecast.forecast import ALONE, Forecast, forecast
from interlace.project.forecast.machine import GIB
from interlace.project.forecast.rates import Rates
from interlace.project.forecast.setting import Setting
from interlace.speed.requests import SHAPES

Changes = dict[str, Any]  # values by the names of parameters
SMALLEST_LENGTH, SMALLEST_AREA = 512, 50_176  # tokens of a row, pixels of an image
LARGEST_AREA = 2**22
RANK = 32  # of adapters, as the domain-aware paper has it


def with_changes(setting: Setting, changes: Changes) -> Setting:
    """Return a setting with other parameters, and as many rows as these draw.

    Raises:
        InputError: they are not allowed together.
    """
    values = setting.params.model_dump()
    for name, value in changes.items():
        *sections, last = name.split(".")
        section = values
        for key in sections:
            section = section[key]
        section[last] = value
    params = validated(Params, values, "params.yaml")
    share = params.data.share / setting.params.data.share
    rows = setting.rows
    if share != 1:
        train, calibration = int(share * rows.train), int(share * rows.calibration)
        rows = replace(rows, train=max(1, train), calibration=max(1, calibration))
    return replace(setting, params=params, rows=rows)


def refusals(setting: Setting, computed: Forecast, rates: Rates) -> list[str]:
    """Say what does not fit, and the parameters that make it fit."""
    lines = []
    refused: set[str] = set()  # `evaluate` of the dense model speaks for the others
    for stage in computed.stages:
        name = stage.name.split()[0]
        if stage.fits or name in refused:
            continue
        refused.add(name)

        def excess(case: Setting, name: str = stage.name) -> float:
            """Return the bytes that are lacking; below 0: that are left."""
            tried = forecast(case, rates).stage(name)
            return tried.memory.peak - tried.room if tried.memory else -tried.room

        advice = _advice(setting, list(_memory_changes(name, setting)), excess, GIB, "GiB")
        need = stage.room + excess(setting)
        lines.append(
            f"{stage.name} needs {need / GIB:.1f} GiB of memory in each process, and has"
            f" {stage.room / GIB:.1f} GiB; {advice}"
        )
    if computed.disk_peak > computed.free:
        advice = _advice(
            setting,
            list(_disk_changes(setting)),
            lambda case: forecast(case, rates).disk_peak - computed.free,
            1e9,
            "GB",
        )
        lines.append(
            f"the disk needs {computed.disk_peak / 1e9:.1f} GB, and {computed.free / 1e9:.1f} GB"
            f" are free; {advice}"
        )
    return lines


def _advice(
    setting: Setting,
    tries: list[Changes],
    excess: Callable[[Setting], float],
    scale: float,
    unit: str,
) -> str:
    """Name the first change that is enough, else two, else all; or say what is still lacking.

    Args:
        setting: that does not fit.
        tries: changes, the gentlest first.
        excess: bytes that are lacking in a setting; below 0: that are left.
        scale: bytes of the unit.
        unit: to write them in.
    """
    lacking = excess(setting)
    pairs = [a | b for a, b in combinations(tries, 2) if not a.keys() & b.keys()]
    for changes in (*tries, *pairs, _smallest(tries)):
        try:
            left = -excess(with_changes(setting, changes))
        except InputError:
            continue
        lacking = min(lacking, -left)
        if left >= 0:
            return f"set {_written(changes)} ({left / scale:.1f} {unit} to spare)"
    return f"no parameter makes it fit: at their smallest {lacking / scale:.1f} {unit} are lacking"


def _smallest(tries: list[Changes]) -> Changes:
    """Return all changes together, the last value of each parameter."""
    return {name: value for changes in tries for name, value in changes.items()}


def _written(changes: Changes) -> str:
    """Write changes as a user reads them."""

    def value(item: Any) -> str:
        return str(item).lower() if isinstance(item, bool) else str(item)

    return " and ".join(f"{name} to {value(item)}" for name, item in changes.items())


def _halves(name: str, value: int, least: int) -> Iterator[Changes]:
    """Yield a parameter at a half of its value, a quarter, and so on."""
    while value // 2 >= least:
        value //= 2
        yield {name: value}


def _areas(name: str, value: int | None) -> Iterator[Changes]:
    yield from _halves(name, min(value or 2 * LARGEST_AREA, 2 * LARGEST_AREA), SMALLEST_AREA)


def _memory_changes(stage: str, setting: Setting) -> Iterator[Changes]:
    """Yield what lowers the memory of a stage; what leaves results as they are comes first."""
    if setting.processes > 1 and not setting.machine.gpus and stage not in ALONE:
        yield {"launch": "python -m"}
    yield from _CHANGES[stage](setting)
    if stage != "export" and setting.element(setting.params.dtype) == 4:
        yield {"dtype": "bfloat16"}


def _measuring(setting: Setting) -> Iterator[Changes]:
    measure = setting.params.measure
    yield from _halves("measure.batch_tokens", measure.batch_tokens, SMALLEST_LENGTH)
    yield from _areas("measure.max_pixels", measure.max_pixels)
    yield from _halves("measure.max_length", measure.max_length, SMALLEST_LENGTH)


def _collecting(setting: Setting) -> Iterator[Changes]:
    yield from _measuring(setting)
    if setting.machine.gpus > 1:
        yield {"collect.device_map": "auto", "launch": "python -m"}


def _exporting(setting: Setting) -> Iterator[Changes]:
    yield from _areas("measure.max_pixels", setting.params.measure.max_pixels)
    yield from _halves("measure.max_length", setting.params.measure.max_length, SMALLEST_LENGTH)
    yield {"export.parity_samples": 0}


def _training(setting: Setting) -> Iterator[Changes]:
    recipe, name = setting.params.finetune, "finetune"
    if recipe.gradient_checkpointing is not True:
        yield {f"{name}.gradient_checkpointing": True}
    yield from _halves(f"{name}.micro_batch_size", recipe.micro_batch_size, 1)
    if setting.machine.gpus:
        for stage in (2, 3):
            if setting.processes > 1 and stage > recipe.zero_stage:
                yield {f"{name}.zero_stage": stage}
        yield {f"{name}.zero_stage": max(2, recipe.zero_stage), f"{name}.offload": "optimizer"}
        yield {f"{name}.zero_stage": 3, f"{name}.offload": "all"}
    yield from _halves(f"{name}.max_length", recipe.max_length, SMALLEST_LENGTH)
    if not recipe.lora_rank:
        also: Changes = {f"{name}.also": []} if recipe.also else {}
        yield {f"{name}.lora_rank": RANK} | also
    if setting.machine.gpus and recipe.dtype == "float32":
        yield {f"{name}.dtype": "bfloat16"}


def _evaluating(setting: Setting) -> Iterator[Changes]:
    evaluate = setting.params.evaluate
    yield from _halves("evaluate.batch_size", evaluate.batch_size, 1)
    yield from _areas("evaluate.max_pixels", evaluate.max_pixels)
    yield from _halves("evaluate.max_new_tokens", evaluate.longest, 16)


def _timing(setting: Setting) -> Iterator[Changes]:
    if setting.params.ttft.batch_sizes:
        yield {"ttft.batch_sizes": []}
    shapes = list(setting.params.ttft.shapes)
    by_area = sorted(shapes, key=lambda name: setting.shape_image(SHAPES[name], None))
    for count in range(len(by_area) - 1, 0, -1):
        yield {"ttft.shapes": [name for name in shapes if name in by_area[:count]]}


def _answering(setting: Setting) -> Iterator[Changes]:
    yield from _halves("answers.batch_tokens", setting.params.answers.batch_tokens, SMALLEST_LENGTH)
    yield from _halves("answers.max_new_tokens", setting.params.answers.max_new_tokens, 16)


_CHANGES: dict[str, Callable[[Setting], Iterator[Changes]]] = {
    "answers": _answering,
    "collect": _collecting,
    "sensitivity": _measuring,
    "export": _exporting,
    "finetune": _training,
    "reference": _training,
    "evaluate": _evaluating,
    "ttft": _timing,
}


def _disk_changes(setting: Setting) -> Iterator[Changes]:
    params = setting.params
    if setting.dense.stored_bytes > 2 and params.export.dtype in ("keep", "float32"):
        yield {"export.dtype": "bfloat16"}
    if params.collect.pooled != "none":
        yield {"collect.pooled": "none"}
    if params.collect.max_span is None:
        yield {"collect.max_span": 3}
    fraction = params.data.share
    for _ in range(8):
        fraction /= 2
        yield {"data.fraction": fraction}
    if not params.finetune.lora_rank:
        also: Changes = {"finetune.also": []} if params.finetune.also else {}
        yield {"finetune.lora_rank": RANK} | also
