"""What does not fit is refused by a parameter that makes it fit."""

from __future__ import annotations

import re
from typing import Any

import pytest
from project.forecast import forecasts
from ruamel.yaml import YAML

from interlace.project.forecast.forecast import forecast
from interlace.project.forecast.remedies import refusals, with_changes
from interlace.project.forecast.setting import Setting, processes_of

SHAPES = {"ttft": {"shapes": ["AI2D", "HRBench8K"]}}
ASKED = {"evaluate": {"benchmarks": ["HRBench8K"], "batch_size": 16}}


def lines(case: Setting) -> list[str]:
    return refusals(case, forecast(case, forecasts.rates(case)), forecasts.rates(case))


def advised(line: str) -> dict[str, Any]:
    """The changes that a refusal names."""
    (words,) = re.findall(r"; set (.*) \([\d.]+ \w+ to spare\)$", line)
    pairs = [pair.split(" to ", 1) for pair in words.split(" and ")]
    return {name: YAML(typ="safe").load(value) for name, value in pairs}


@pytest.mark.parametrize(
    ("case", "stage", "parameter"),
    [
        (forecasts.setting(20), "collect", "measure.batch_tokens"),
        (
            forecasts.setting(79, finetune={"packing": False}),
            "finetune",
            "finetune.micro_batch_size",
        ),
        (
            forecasts.setting(20, gpus=8, finetune={"zero_stage": 0}),
            "finetune",
            "finetune.zero_stage",
        ),
        (
            forecasts.setting(79, finetune={"gradient_checkpointing": False}),
            "finetune",
            "finetune.gradient_checkpointing",
        ),
        (forecasts.setting(30), "finetune", "finetune.offload"),
        (forecasts.setting(79, **ASKED), "evaluate", "evaluate.batch_size"),
        (forecasts.setting(35, **SHAPES), "ttft", "ttft.shapes"),
        (forecasts.setting(48, method="taylor"), "sensitivity", "measure.batch_tokens"),
        (forecasts.setting(18), "export", "measure.max_length"),
        (forecasts.setting(48, reference="dense-sft"), "reference", "finetune.offload"),
        (
            forecasts.setting(24, answers={"source": "dense", "batch_tokens": 65536}),
            "answers",
            "answers.batch_tokens",
        ),
    ],
)
def test_the_named_parameter_makes_the_stage_fit(case: Setting, stage: str, parameter: str) -> None:
    computed = forecast(case, forecasts.rates(case))
    (line,) = (line for line in lines(case) if line.startswith(stage))
    changes = advised(line)
    assert parameter in changes
    assert not next(s for s in computed.stages if s.name.startswith(stage)).fits
    after = forecast(with_changes(case, changes), forecasts.rates(case))
    assert all(s.fits for s in after.stages if s.name.startswith(stage))


def test_what_no_parameter_makes_fit_says_what_is_lacking() -> None:
    line = next(line for line in lines(forecasts.setting(8)) if line.startswith("collect"))
    assert re.search(r"no parameter makes it fit: at their smallest [\d.]+ GiB are lacking$", line)


def test_a_run_that_fits_is_not_refused() -> None:
    assert lines(forecasts.setting(179)) == []


@pytest.mark.parametrize("free", [60e9, 90e9, 120e9])
def test_a_full_disk_is_named_with_what_needs_less(free: float) -> None:
    case = forecasts.setting(500, disk=free, data={"id": "org/rows", "fraction": 0.5})
    (line,) = lines(case)
    assert line.startswith("the disk needs ")
    after = with_changes(case, advised(line))
    assert forecast(after, forecasts.rates(case)).disk_peak <= free


def test_one_process_of_a_cpu_has_all_of_its_memory() -> None:
    case = forecasts.setting(40, gpus=4, method="taylor")
    on_cpu = with_changes(case, {"dtype": "bfloat16"})
    on_cpu = Setting(**{**vars(on_cpu), "machine": forecasts.setting(80, gpus=0).machine})
    computed = forecast(on_cpu, forecasts.rates(on_cpu))
    assert computed.stage("export").room == 4 * computed.stage("collect").room
    line = next(line for line in lines(on_cpu) if line.startswith("collect"))
    assert advised(line) == {"launch": "python -m"}


@pytest.mark.parametrize(
    ("launch", "processes"),
    [
        ("python -m", 1),
        ("torchrun --nproc-per-node 8 -m", 8),
        ("torchrun --nnodes=2 --nproc_per_node=4 -m", 8),
    ],
)
def test_the_words_of_a_launch_tell_its_processes(launch: str, processes: int) -> None:
    assert processes_of(launch) == processes
