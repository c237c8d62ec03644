"""`make gpu` without a GPU: tiny models for its parts, and its table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.gpu import __main__ as program
from benchmarks.gpu.setting import TINY, Figure, Result
from interlace.system.outputs import write_json

Part = Callable[..., Result]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in program.PARTS if name != "checks"])
def test_each_part_runs_on_tiny_models(name: str) -> None:
    threads = torch.get_num_threads()
    *_, result = program.PARTS[name](TINY)
    torch.set_num_threads(threads)
    values = {figure.label: figure.value for figure in result.figures}
    assert all(values.values())
    if name == "export":
        assert values["export, greatest difference to the dense model"] == "0.0"
    if name == "finetune":
        assert sum("attention" in label for label in values) == 3  # no such kernels on a CPU
        assert {values[label] for label in values if "attention" in label} == {"not run"}
    if name.startswith("ttft"):
        assert result.table.splitlines()[-1].startswith("| POPE | ")
        assert result.table.splitlines()[-1].count(" / ") == 2 * 4


def test_a_part_that_fails_is_named_and_the_others_count(tmp_path: Path) -> None:
    done = program.Outcome(
        "collect", "a card", 60.0, Result([Figure("speed", "3", "of 4")], "| t |")
    )
    write_json(tmp_path / "collect.json", asdict(done))
    failed = program.Outcome("export", "a card", 60.0, None, "disk full")
    text = program.page([program.read_outcome("collect", tmp_path), failed])
    assert "a card. All parts took 2.0 minutes." in text
    assert "| speed | 3 | of 4 |\n| export | not measured | disk full |\n" in text
    assert text.endswith("\n| t |")


def test_a_part_without_time_is_not_run(tmp_path: Path) -> None:
    outcome = program.run_part("collect", tmp_path, 0.0, ["--tiny"])
    assert outcome.result is None and outcome.reason == "no time was left"
    assert program.read_outcome("collect", tmp_path) == outcome


def test_figures_count_though_a_part_ends_early() -> None:
    result = Result([Figure("first", "1")])
    outcome = program.Outcome("ttft-8B", "a card", 60.0, result, "no time was left")
    assert outcome.lines() == "| first | 1 |  |\n| ttft-8B | not finished | no time was left |\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_without_a_gpu_one_line_names_the_trial() -> None:
    result = CliRunner().invoke(program.main, [])
    assert result.exit_code == 2
    assert result.output == "error: no CUDA device; run it where there is one, or with --tiny\n"
