"""A model that takes text alone goes through all stages, and images for it are refused by `pin`."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from forked_programs import environment
from pyarrow import csv

from interlace.report.publish import files_to_publish
from interlace.system.documents import as_yaml

ROOT = Path(__file__).parents[2]
PARAMS: dict[str, Any] = {
    "model": {"id": "model"},
    "data": {"id": "rows.parquet", "fraction": 1.0, "calibration_fraction": 0.5},
    "sensitivity": {"samples": 3},
    "finetune": {"max_steps": 2, "batch_size": 4, "micro_batch_size": 4, "zero_stage": 0},
    "evaluate": {"heldout": "heldout.parquet", "max_new_tokens": 2},
    "ttft": {"requests": 1, "repeats": 2, "warmup": 0, "max_interval": 100},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny Llama, rows of text, and parameters."""
    models.tiny_llama(tmp_path / "model", layers=8)
    (tmp_path / "data").mkdir()
    rows = [models.row(i, images=0, source=f"source_{i % 2}") for i in range(40)]
    schema = pa.Table.from_pylist([models.row(0)]).schema
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:4], schema), tmp_path / "heldout.parquet")
    with_image = [*rows[:33], models.row(0)]
    pq.write_table(pa.Table.from_pylist(with_image, schema), tmp_path / "images.parquet")
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return tmp_path


def write_params(folder: Path, **changes: dict[str, Any]) -> None:
    sections = {name: PARAMS.get(name, {}) | values for name, values in changes.items()}
    (folder / "params.yaml").write_text(as_yaml(PARAMS | sections))


def run(stage: str, *arguments: str) -> Result:
    return CliRunner().invoke(importlib.import_module(f"stages.{stage}").main, list(arguments))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"id": "images.parquet"}},
            "images.parquet: row 33 has an image, and llama takes text alone; set data.max_images"
            " to 0, which skips such rows, or choose a vision-language model",
        ),
        (
            {"evaluate": {"heldout": "images.parquet"}},
            "images.parquet: row 33 has an image, and llama takes text alone; remove such rows from"
            " evaluate.heldout, or choose a vision-language model",
        ),
        (
            {"evaluate": {"judged": ["images.parquet"]}},
            "images.parquet: row 33 has an image, and llama takes text alone; remove such rows from"
            " evaluate.judged, or choose a vision-language model",
        ),
        (
            {"evaluate": {"benchmarks": ["AI2D"]}},
            "evaluate.benchmarks = AI2D: asks about images, and llama takes text alone; set it to"
            " [], and evaluate.heldout",
        ),
        ({"ttft": {"shapes": ["AI2D", "POPE"]}}, "ttft.shapes = AI2D, POPE: asks about images"),
    ],
    ids=["training", "held out", "judged", "benchmarks", "shapes"],
)
def test_images_are_refused_in_one_line(
    project: Path, changes: dict[str, dict[str, Any]], message: str
) -> None:
    write_params(project, **changes)
    result = run("pin")
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def test_probes_are_refused_in_one_line(project: Path) -> None:
    prompts = ROOT / "data/probes.yaml"
    sources = {"math_sources": ["source_0"], "nonmath_sources": ["source_1"]}
    write_params(project, probes={"per_task": 2, "prompts": str(prompts)} | sources)
    result = run("pin")
    assert result.exit_code == 2
    assert "probes.per_task = 2: asks about images, and llama takes text alone" in result.stderr


def test_rows_with_images_are_skipped_where_none_are_allowed(project: Path) -> None:
    write_params(project, data={"id": "images.parquet", "max_images": 0})
    assert run("pin").exit_code == 0
    result = run("sample")
    assert result.exit_code == 0, result.output
    assert "skipped 1 rows: more than 0 images" in result.output


def test_a_tokenizer_is_all_that_stands_beside_the_weights(project: Path) -> None:
    (project / "model/tokenizer_config.json").unlink()
    result = run("pin")
    assert result.exit_code == 2
    assert "model: no tokenizer_config.json; copy the tokenizer's files there too" in result.stderr


@pytest.mark.slow
def test_a_text_only_model_goes_through_all_stages(project: Path) -> None:
    select = {"protect_first": 0, "candidates": 2, "candidate_steps": 1, "candidate_rows": 4}
    write_params(project, heal={"local_steps": 2}, export={"compensate": "lstsq"}, select=select)
    for stage, *arguments in (
        *(("pin",), ("sample",), ("collect",), ("sensitivity",), ("score",), ("budget",)),
        *(("answers",), ("rounds",), ("candidates",), ("select",)),
        *(("export",), ("finetune",)),
        *(("reference_plan",), ("reference",)),
        *(("evaluate", "--model", name) for name in ("dense", "pruned", "tuned", "reference")),
        *(("ttft",), ("report",)),
    ):
        result = run(stage, *arguments)
        assert result.exit_code == 0, f"{stage}: {result.output} {result.exception!r}"
    summary = json.loads((project / "metrics/summary.json").read_text())
    assert (summary["layers_before"], summary["layers_after"]) == (8, 6)
    assert json.loads((project / "artifacts/export.json").read_text())["parity"] is not None
    card = (project / "artifacts/report/tuned.md").read_text().partition("<details>")[0]
    assert "AutoModelForCausalLM" in card and "pipeline_tag: text-generation" in card
    assert not any(word in card for word in ("ImageText", "vision", "image"))
    assert json.loads((project / "artifacts/plan.json").read_text())["candidates"] == 2
    assert "best of 2 plans after healing" in card
    page = (project / "artifacts/report/report.html").read_text()
    assert "over the chosen" in page
    assert not any(word in page for word in ("on each probe task", "per_task", "pixels"))
    files = files_to_publish(project / "artifacts", "tuned", "you/tuned", None)
    assert {"README.md", "config.json", "tokenizer.json"} <= files.keys()


@pytest.mark.slow
def test_two_processes_compare_candidates_as_one(project: Path) -> None:
    select = {"candidates": 2, "protect_first": 0, "candidate_steps": 2, "candidate_rows": 4}
    write_params(project, select=select, finetune={"workers": 0})
    for stage in ("pin", "sample", "collect", "sensitivity", "score", "budget", "answers"):
        assert run(stage).exit_code == 0
    assert run("candidates").exit_code == 0
    losses = project / "artifacts/candidates/losses.csv"
    alone = csv.read_csv(losses)
    shutil.rmtree(project / ".scratch/candidates")
    subprocess.run(
        [
            *("torchrun", "--standalone", "--nproc-per-node", "2", "-m", "stages.candidates"),
        ],
        cwd=project,
        env=environment(),
        check=True,
    )
    together = csv.read_csv(losses)
    assert together.drop_columns(["loss_after", "error"]).equals(
        alone.drop_columns(["loss_after", "error"])
    )
    for column in ("loss_after", "error"):
        assert together[column].to_pylist() == pytest.approx(alone[column].to_pylist(), rel=1e-4)
