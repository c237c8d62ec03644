"""The check lets through the dense model without the layers, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from plans import PLAN, PREFIX, make_plan, weights
from safetensors.torch import load_file, save_file

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.safetensors import tensor_files
from interlace.errors import ContractError, InputError
from interlace.params.exporting import Export
from interlace.params.measuring import Answers
from interlace.pruning.dense import Dense
from interlace.pruning.export import export_checkpoint
from interlace.pruning.parity import (
    Prompt,
    _refuse_difference,
    check_parity,
    drawn_prompts,
    first_difference,
)
from interlace.pruning.report import ParityReport
from interlace.samples.rows import write_rows

ROWS = 12  # of calibration


@pytest.fixture
def pruned(pruned_dir: Path, tmp_path: Path) -> Path:
    """A copy of the pruned checkpoint."""
    return Path(shutil.copytree(pruned_dir, tmp_path / "pruned"))


def check(dense: Path, written: Path, rows: Path, plan: Any = PLAN, **params: Any) -> ParityReport:
    replaced = params.pop("replaced", {})
    source = Dense(Checkpoint(dense), rows, Answers())
    return check_parity(written, source, plan, Export(**params), replaced)


def test_an_export_passes(dense_dir: Path, pruned_dir: Path, calibration: Path) -> None:
    report = check(dense_dir, pruned_dir, calibration)
    assert report.tokens > 40
    assert report.as_json() == {
        "samples": 4,
        "left_out": 0,
        "tokens": report.tokens,
        "layers": 4,
        "dtype": "float32",
        "greatest_difference": 0.0,
    }


def test_a_conversion_that_the_parameters_do_not_name_is_refused(
    dense_dir: Path, calibration: Path, tmp_path: Path
) -> None:
    export_checkpoint(dense_dir, PLAN, tmp_path / "pruned", dtype="bfloat16")
    with pytest.raises(ContractError, match=r"first at layer 0 \(dense layer 0\)"):
        check(dense_dir, tmp_path / "pruned", calibration)


@pytest.mark.parametrize(
    ("name", "position"),
    [
        (f"{PREFIX}.1.input_layernorm.weight", r"layer 1 \(dense layer 1\)"),
        (f"{PREFIX}.3.mlp.down_proj.weight", r"layer 3 \(dense layer 4\)"),
        ("model.language_model.norm.weight", "the logits"),
        ("model.visual.patch_embed.proj.weight", r"layer 0 \(dense layer 0\)"),
    ],
)
def test_the_first_layer_that_the_smallest_change_reaches_is_named(
    dense_dir: Path, pruned: Path, calibration: Path, name: str, position: str
) -> None:
    file = tensor_files(pruned)[name]
    tensors = load_file(file)
    tensors[name] = torch.nextafter(tensors[name], torch.tensor(10.0))
    save_file(tensors, file, metadata={"format": "pt"})
    message = (
        f"without layers 3, 5: first at {position}, by up to .* on sample [0-9a-f]{{16}};"
        " it was not put in place"
    )
    with pytest.raises(ContractError, match=message) as caught:
        check(dense_dir, pruned, calibration)
    assert "\n" not in str(caught.value)


def test_another_count_of_layers_is_refused(
    dense_dir: Path, pruned_dir: Path, calibration: Path
) -> None:
    with pytest.raises(ContractError, match="has 4 layers, not 5"):
        check(dense_dir, pruned_dir, calibration, make_plan([5], [4]))


@pytest.mark.parametrize(("dtype", "opened"), [("keep", "float32"), ("bfloat16", "bfloat16")])
def test_replaced_values_are_put_in_on_the_dense_side_too(
    dense_dir: Path, calibration: Path, tmp_path: Path, dtype: Any, opened: str
) -> None:
    name, file = f"{PREFIX}.4.mlp.down_proj.weight", tmp_path / "new.safetensors"
    save_file({name: weights(dense_dir)[name] * 1.5}, file)
    out = tmp_path / "pruned"
    export_checkpoint(dense_dir, PLAN, out, replaced={name: file}, dtype=dtype)
    report = check(dense_dir, out, calibration, replaced={name: file}, dtype=dtype)
    assert report.dtype == opened
    with pytest.raises(ContractError, match=r"first at layer 3 \(dense layer 4\)"):
        check(dense_dir, out, calibration, dtype=dtype)


def test_a_replaced_tensor_that_the_model_does_not_have_is_named(
    dense_dir: Path, pruned_dir: Path, calibration: Path, tmp_path: Path
) -> None:
    name, file = f"{PREFIX}.0.ghost", tmp_path / "new.safetensors"
    save_file({name: torch.zeros(1)}, file)
    with pytest.raises(ContractError, match=r"has no parameter .*layers\.0\.ghost to check it by"):
        check(dense_dir, pruned_dir, calibration, replaced={name: file})


def test_without_samples_nothing_is_checked(tmp_path: Path) -> None:
    report = check(tmp_path / "none", tmp_path / "none", tmp_path / "none", parity_samples=0)
    assert report.as_json() == {"samples": 0}


def test_samples_without_rows_are_refused(
    dense_dir: Path, pruned_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"no rows to check the export on.*parity_samples to 0"):
        check(dense_dir, pruned_dir, tmp_path)


@pytest.mark.parametrize("samples", [1, 2, 4, ROWS, 50])
def test_the_shortest_and_the_longest_prompt_are_among_the_samples(
    processor: Any, calibration: Path, samples: int
) -> None:
    lengths = [prompt.tokens for prompt in drawn_prompts(processor, calibration, ROWS, 999)[0]]
    prompts, _ = drawn_prompts(processor, calibration, samples, 999)
    tokens = [prompt.tokens for prompt in prompts]
    assert len({prompt.sample_id for prompt in prompts}) == len(prompts) == min(samples, ROWS)
    assert max(tokens) == max(lengths)
    assert samples == 1 or min(tokens) == min(lengths)
    assert samples < 4 or any("pixel_values" in prompt.inputs for prompt in prompts)
    assert all("labels" not in prompt.inputs for prompt in prompts)


def test_a_row_that_cannot_be_read_is_skipped_and_counted(processor: Any, tmp_path: Path) -> None:
    rows = [row | {"sample_id": f"id{number}"} for number, row in enumerate(models.rows(9))]
    rows[1]["images"][0]["bytes"] = b"no picture"
    write_rows(iter(rows), tmp_path)
    prompts, skipped = drawn_prompts(processor, tmp_path, 9, 999)
    assert skipped == 1
    assert {prompt.sample_id for prompt in prompts} == {f"id{n}" for n in range(9) if n != 1}


def test_prompts_longer_than_the_longest_are_skipped(processor: Any, calibration: Path) -> None:
    prompts, _ = drawn_prompts(processor, calibration, ROWS, 999)
    lengths = sorted(prompt.tokens for prompt in prompts)
    prompts, skipped = drawn_prompts(processor, calibration, ROWS, lengths[4])
    assert max(prompt.tokens for prompt in prompts) == lengths[4]
    assert skipped == sum(tokens > lengths[4] for tokens in lengths)
    with pytest.raises(InputError, match=r"none of 12 rows .* longer than max_length = 1; "):
        drawn_prompts(processor, calibration, ROWS, 1)


def test_the_first_states_that_differ_and_the_greatest_difference() -> None:
    states = [torch.zeros(1, 2, 3) for _ in range(3)]
    others = [state.clone() for state in states]
    assert first_difference(states, others) is None
    others[1][0, 1, 2] = -0.5
    others[1][0, 0, 0] = 0.25
    others[2] += 9
    assert first_difference(states, others) == (1, 0.5)


def test_states_that_are_not_finite_are_infinitely_far_unless_the_same() -> None:
    states = [torch.tensor([torch.nan, 1.0])]
    assert first_difference(states, [states[0].clone()]) is None
    assert first_difference(states, [torch.tensor([0.0, 1.0])]) == (0, torch.inf)


def test_of_all_samples_the_earliest_and_greatest_difference_is_named() -> None:
    dense = [torch.zeros(1), torch.zeros(1)]
    changes = {"late": [0.0, 9.0], "small": [0.25, 0.0], "great": [0.5, 0.0]}
    written = [[torch.tensor([value]) for value in values] for values in changes.values()]
    prompts = [Prompt(sample_id, {}) for sample_id in changes]
    with pytest.raises(ContractError, match=r"layer 0 \(dense layer 0\), by up to 0.5 on .* great"):
        _refuse_difference(PLAN, prompts, [dense] * 3, written)
