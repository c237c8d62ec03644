"""Every stage explains itself, and a user's mistake ends in one line before any long work."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from drawn_rows import PICTURE

from interlace.params.section import leaf_names
from interlace.system.documents import as_yaml
from stages.digests import stage_names

ROOT = Path(__file__).parents[2]
DATA = {"id": "rows.parquet"}
STAGES = stage_names()
PROBES = {
    "per_task": 1,
    "nonmath_sources": ["made_up"],
    "prompts": str(ROOT / "data/probes.yaml"),
}
ROW = {
    "images": [PICTURE],
    "texts": [{"user": "ask", "assistant": "answer"}],
    "source": "made_up",
}


def command(stage: str) -> Any:
    return importlib.import_module(f"stages.{stage}").main


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with parameters, a model and a data file, where stages run."""
    shutil.copytree(ROOT / "data/demo/model", tmp_path / "model")
    pq.write_table(pa.Table.from_pylist([ROW]), tmp_path / "rows.parquet")
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return tmp_path


def write_params(folder: Path, **changes: Any) -> None:
    heldout = {"heldout": str(ROOT / "data/demo/test.parquet")}
    params = {"model": {"id": "model"}, "data": DATA, "evaluate": heldout} | changes
    (folder / "params.yaml").write_text(as_yaml(params))


def run(stage: str, *arguments: str) -> Result:
    return CliRunner().invoke(command(stage), list(arguments))


def mistake(stage: str = "pin", *arguments: str) -> str:
    """Runs a stage that must refuse; returns the one line it said."""
    result = run(stage, *arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("stage", STAGES)
def test_an_entrypoint_has_at_most_forty_lines(stage: str) -> None:
    lines = (ROOT / f"stages/{stage}.py").read_text().splitlines()
    assert len([line for line in lines if line]) <= 40


@pytest.mark.parametrize("stage", STAGES)
def test_help_lists_every_parameter_with_its_default(stage: str) -> None:
    main = command(stage)
    result = CliRunner().invoke(main, ["--help"], terminal_width=300, max_content_width=300)
    assert result.exit_code == 0
    assert main.help.strip().endswith(".")
    lines = [line.split() for line in result.output.splitlines()]
    for name in leaf_names(main.params_model):
        place = next((n for n, line in enumerate(lines) if line[:1] == [name]), None)
        assert place is not None, f"{name} is not in the help"
        said = " ".join(lines[place][1:] or lines[place + 1])  # below a long name
        assert "[default " in said or "[required]" in said, said


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_takes_what_deepspeed_s_launcher_appends(stage: str) -> None:
    more = ["--model", "dense"] if stage == "evaluate" else []
    command(stage).make_context(stage, ["--local_rank=1", *more])
    assert "local_rank" not in CliRunner().invoke(command(stage), ["--help"]).output


@pytest.mark.parametrize("blocked", [".scratch", ".scratch/locks", ".scratch/pin", "artifacts"])
def test_a_file_in_the_place_of_a_folder_ends_in_one_line(project: Path, blocked: str) -> None:
    (project / blocked).parent.mkdir(exist_ok=True)
    (project / blocked).touch()
    assert mistake() == f"error: {blocked}: a file where a folder should be; move it"


def test_sound_input_is_pinned(project: Path) -> None:
    result = run("pin")
    assert result.exit_code == 0, result.output
    assert "6 of 24 layers are to go" in result.output
    sources = json.loads((project / "artifacts/sources.json").read_text())
    assert sources["pinned_model"]["n_layers"] == 24
    assert set(sources["pinned_data"]["files"]) == {"rows.parquet"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratio": 1.5}, "params.yaml: ratio = 1.5: "),
        ({"ratio": 0.01}, "ratio = 0.01: drops none of 24 layers"),
        ({"evaluate": {"heldout": "gone.parquet"}}, "gone.parquet"),
        ({"data": DATA | {"subsets": ["row"]}}, "data.subsets: rows.parquet has no subset 'row'"),
        ({"data": DATA | {"min_ratings": {"beauty": 3}}}, "data.min_ratings.beauty"),
        ({"model": {"id": "./nowhere"}}, "model.id = ./nowhere: no such folder"),
        ({"select": {"protect_first": 20}}, "6 layers cannot be dropped"),
        ({"finetune": {"also": ["lm_head"], "lora_rank": 8}}, "lora_rank = 8"),
        ({"finetune": {"also": ["head"]}}, "finetune.also.0 = 'head': "),
        (
            {"probes": PROBES | {"math_sources": ["digit_sum"]}},
            "probes.math_sources: data.id = rows.parquet has no rows of 'digit_sum'; name some of",
        ),
        ({"launch": "torchrn -m"}, "launch = 'torchrn -m': no such program"),
        ({"ttft": {"engine": "endpoint"}}, "ttft.endpoint.dense.url: empty"),
    ],
)
def test_pin_refuses_a_mistake_in_one_line(
    project: Path, changes: dict[str, Any], message: str
) -> None:
    write_params(project, **changes)
    assert message in mistake()


def test_a_tied_head_that_is_to_be_trained_is_refused(project: Path) -> None:
    write_params(project, finetune={"also": ["lm_head"]})
    assert "model/config.json ties the head to the token embeddings" in mistake()
    models.untied_qwen3_vl(project / "untied", layers=6)
    pq.write_table(pa.Table.from_pylist(models.rows(3)), project / "heldout.parquet")
    untied = {"model": {"id": "untied"}, "evaluate": {"heldout": "heldout.parquet"}}
    write_params(project, finetune={"also": ["lm_head"]}, **untied)
    result = run("pin")
    assert result.exit_code == 0, result.output


def test_a_broken_row_is_left_out_and_counted(project: Path) -> None:
    good = ROW | {"images": []}
    rows = [good, good | {"texts": [{"user": "", "assistant": "a"}]}]
    schema = pa.Table.from_pylist([ROW]).schema
    pq.write_table(pa.Table.from_pylist(rows, schema), project / "broken.parquet")
    write_params(project, data={"id": "broken.parquet"})
    assert run("pin").exit_code == 0
    result = run("sample")
    assert result.exit_code == 0
    said = "sample: skipped 1 rows: the first turn has no question or no answer"
    assert said in result.output.splitlines()


def test_what_was_drawn_outlives_a_mistake_in_the_probes_and_not_the_stage(project: Path) -> None:
    pq.write_table(pa.Table.from_pylist([ROW | {"images": []}]), project / "rows.parquet")
    probes = {"per_task": 1, "math_sources": ["rows"], "nonmath_sources": ["made_up"]}
    (project / "data").mkdir()
    (project / "data/probes.yaml").write_text((ROOT / "data/probes.yaml").read_text())
    write_params(project, probes=probes)
    assert run("pin").exit_code == 0
    assert "the training set has no rows of 'rows'" in run("sample").stderr
    (kept,) = (project / ".scratch/sample").iterdir()
    write_params(project)
    assert run("sample").exit_code == 0
    assert not kept.exists()


def test_the_number_of_workers_is_no_reason_to_draw_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.Table.from_pylist([ROW | {"images": []}]), project / "rows.parquet")
    monkeypatch.setattr("stages.command.remove", lambda _: None)
    for workers in (1, 2):
        write_params(project, data=DATA | {"workers": workers})
        assert (run("pin").exit_code, run("sample").exit_code) == (0, 0)
    assert len(list((project / ".scratch/sample").iterdir())) == 1


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("rows.parquet", None, "data.id = rows.parquet: no such file"),
        ("rows.parquet", "a,b", "rows.parquet: not a readable Parquet file"),
        ("model/config.json", '{"model_type": "bert"}', "model_type 'bert' is not a supported"),
    ],
)
def test_pin_names_a_file_that_it_cannot_use(
    project: Path, file: str, text: str | None, message: str
) -> None:
    (project / file).unlink()
    if text:
        (project / file).write_text(text)
    assert message in mistake()


def test_data_without_a_column_are_refused(project: Path) -> None:
    pq.write_table(pa.Table.from_pylist([ROW]).drop_columns(["texts"]), project / "rows.parquet")
    assert "rows.parquet: column 'texts' is missing" in mistake()


@pytest.mark.parametrize("stage", ["sample", "collect", "export", "finetune", "ttft", "report"])
def test_a_stage_without_a_pin_says_so(project: Path, stage: str) -> None:
    assert "no such file; run `python -m stages." in mistake(stage)


def test_parameters_of_a_run_without_dvc_come_from_a_file(project: Path) -> None:
    (project / "params.yaml").rename(project / "mine.yaml")
    assert run("pin", "--params", "mine.yaml").exit_code == 0
    assert "none.yaml: no such file" in mistake("pin", "--params", "none.yaml")


@pytest.mark.parametrize("changes", [{"ratio": 0.01}, {"model": {"id": "./nowhere"}}, {}], ids=str)
def test_pin_needs_torch_for_an_unknown_model_alone(project: Path, changes: dict[str, Any]) -> None:
    run("pin")  # opens the model, with torch
    write_params(project, **changes)
    code = """
import sys
from stages.pin import main
try:
    main([])
except SystemExit as stop:
    print(stop.code, "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == f"{2 if changes else 0} False"
