"""A decoder with several kinds of layers: what runtimes misread is named, and `keep` avoids it."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result

from interlace.cli import main
from interlace.system.documents import as_yaml

N_LAYERS = 14  # two periods of 6, as Gemma 3 has them, and two layers more
WRONG = "would run this model wrongly: it takes layer_types of gemma3_text by periods of 6 layers"
PARAMS: dict[str, Any] = {
    "model": {"id": "model"},
    "data": {"id": "rows.parquet", "fraction": 1.0, "calibration_fraction": 0.5},
    "evaluate": {"heldout": "rows.parquet", "max_new_tokens": 2},
}
MEASURING = ("pin", "sample", "collect", "sensitivity", "score")
CHOOSING = ("pin", "budget", "rounds", "candidates", "select", "export")


def tiny_gemma3(path: Path) -> None:
    """Save an untrained Gemma 3 that takes text alone, with the tokenizer of the tiny Llama."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    models.tiny_llama(path, layers=1)
    vocabulary = json.loads((path / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 32, "intermediate_size": 48, "head_dim": 16, "sliding_window": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = Gemma3TextConfig(vocab_size=vocabulary, num_hidden_layers=N_LAYERS, **sizes, **heads)
    torch.manual_seed(0)
    Gemma3ForCausalLM(config).save_pretrained(path)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with that model and rows of text."""
    tiny_gemma3(tmp_path / "model")
    rows = [models.row(i, images=0, source=f"source_{i % 2}") for i in range(40)]
    schema = pa.Table.from_pylist([models.row(0)]).schema
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "rows.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return tmp_path


def run(stage: str) -> Result:
    return CliRunner().invoke(importlib.import_module(f"stages.{stage}").main, [])


def choose(folder: Path, **params: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Run the stages from `budget` to `export`; the plan, and what each stage prints."""
    (folder / "params.yaml").write_text(as_yaml(PARAMS | params))
    outputs = {}
    for stage in CHOOSING:
        result = run(stage)
        assert result.exit_code == 0, f"{stage}: {result.output} {result.exception!r}"
        outputs[stage] = " ".join(result.output.split())
    outputs["show"] = " ".join(CliRunner().invoke(main, ["show"]).output.split())
    return json.loads((folder / "artifacts/plan.json").read_text()), outputs


@pytest.mark.slow
def test_a_plan_that_runtimes_misread_is_named_and_whole_periods_avoid_it(project: Path) -> None:
    (project / "params.yaml").write_text(as_yaml(PARAMS))
    for stage in MEASURING:
        result = run(stage)
        assert result.exit_code == 0, f"{stage}: {result.output} {result.exception!r}"
    select = {"protect": "none", "drop": [2, 7]}
    plan, outputs = choose(project, method="manual", select=select)
    assert plan["layer_kinds"]["decoder"] == "gemma3_text" and plan["period"] == 0
    for name in ("select", "export", "show"):
        assert f"llama.cpp {WRONG}, so layer 4 of the pruned model" in outputs[name]
        assert f"MLX {WRONG}" in outputs[name]
        assert "set select.period to keep, use another runtime, or write the" in outputs[name]
    plan, outputs = choose(project, ratio=0.5, select={"protect": "none", "period": "keep"})
    assert (plan["period"], len(plan["drop"])) == (6, 6)
    rounded = "1 whole period of 6 layers dropped: 6 of the 7 layers that the ratio is"
    assert rounded in outputs["select"] and rounded in outputs["show"]
    assert not any("wrongly" in output for output in outputs.values())
    written = json.loads((project / "artifacts/pruned/config.json").read_text())
    kinds = ["sliding_attention"] * 5 + ["full_attention"] + ["sliding_attention"] * 2
    assert written["layer_types"] == kinds


def test_pin_refuses_a_ratio_below_one_period(project: Path) -> None:
    (project / "params.yaml").write_text(as_yaml(PARAMS | {"select": {"period": "keep"}}))
    result = run("pin")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line == (
        "error: select.period = keep: 3 of 14 layers are less than a period of 6; the smallest"
        " ratio that drops one is 0.4286"
    )
