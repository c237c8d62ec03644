"""The gate lets through what is the dense model without the layers, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from plans import PLAN, PREFIX, digests, make_plan
from safetensors.torch import load_file, save_file

import interlace
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.safetensors import tensor_files
from interlace.errors import ContractError, InputError
from interlace.params.exporting import Export
from interlace.params.measuring import Answers
from interlace.pruning.dense import Dense
from interlace.pruning.parity import check_parity, drawn_prompts, first_difference
from interlace.pruning.report import ParityReport
from interlace.samples.rows import write_rows


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows") / "calibration"
    rows = [row | {"sample_id": f"id{number}"} for number, row in enumerate(models.rows(9))]
    write_rows(iter(rows), folder)
    return folder


@pytest.fixture
def pruned(dense_dir: Path, tmp_path: Path) -> Path:
    interlace.export(dense_dir, PLAN, tmp_path / "pruned")
    return tmp_path / "pruned"


def gate(dense: Path, written: Path, rows: Path, plan: Any = PLAN, **params: Any) -> ParityReport:
    replaced = params.pop("replaced", {})
    checkpoint = Dense(Checkpoint(dense), rows, Answers())
    return check_parity(written, checkpoint, plan, Export(**params), replaced)


def nudge(folder: Path, name: str, place: int = 0, by: float = 0.25) -> None:
    """Change one number of one stored tensor."""
    path = tensor_files(folder)[name]
    tensors = load_file(path)
    tensors[name].view(-1)[place] += by
    save_file(tensors, path, metadata={"format": "pt"})


def test_an_export_passes(dense_dir: Path, pruned: Path, calibration: Path) -> None:
    found = gate(dense_dir, pruned, calibration)
    assert found.tokens > 40
    assert found.as_json() == {
        "samples": 4,
        "left_out": 0,
        "tokens": found.tokens,
        "layers": 4,
        "dtype": "float32",
        "greatest_difference": 0.0,
    }


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_converted_export_passes(
    dense_dir: Path, calibration: Path, tmp_path: Path, dtype: Any
) -> None:
    interlace.export(dense_dir, PLAN, tmp_path / "pruned", dtype=dtype)
    assert gate(dense_dir, tmp_path / "pruned", calibration, dtype=dtype).dtype == dtype


def test_a_conversion_nobody_asked_for_is_refused(
    dense_dir: Path, calibration: Path, tmp_path: Path
) -> None:
    interlace.export(dense_dir, PLAN, tmp_path / "pruned", dtype="bfloat16")
    with pytest.raises(ContractError, match=r"first at layer 0 \(dense layer 0\)"):
        gate(dense_dir, tmp_path / "pruned", calibration)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        *(
            (f"{PREFIX}.{p}.mlp.down_proj.weight", rf"layer {p} \(dense layer {layer}\)")
            for p, layer in enumerate(PLAN.keep)
        ),
        ("model.language_model.norm.weight", "the logits"),
        ("model.visual.patch_embed.proj.bias", r"layer 0 \(dense layer 0\)"),
    ],
)
def test_the_first_layer_that_differs_is_named(
    dense_dir: Path, pruned: Path, calibration: Path, name: str, place: str
) -> None:
    nudge(pruned, name)
    with pytest.raises(
        ContractError, match=f"without layers 3, 5: first at {place}, by up to .* on sample id"
    ) as caught:
        gate(dense_dir, pruned, calibration)
    assert "\n" not in str(caught.value)


def test_the_smallest_change_is_seen(dense_dir: Path, pruned: Path, calibration: Path) -> None:
    name = f"{PREFIX}.1.input_layernorm.weight"
    path = tensor_files(pruned)[name]
    tensors = load_file(path)
    tensors[name] = torch.nextafter(tensors[name], torch.tensor(10.0))
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ContractError, match=r"first at layer 1 \(dense layer 1\)"):
        gate(dense_dir, pruned, calibration)


def test_another_plan_is_refused(dense_dir: Path, pruned: Path, calibration: Path) -> None:
    with pytest.raises(ContractError, match=r"first at layer 2 \(dense layer 3\)"):
        gate(dense_dir, pruned, calibration, make_plan([2, 5], [4]))
    with pytest.raises(ContractError, match="has 4 layers, not 5"):
        gate(dense_dir, pruned, calibration, make_plan([5], [4]))


def test_a_weight_that_is_missing_is_refused(
    dense_dir: Path, pruned: Path, calibration: Path
) -> None:
    name = "model.language_model.norm.weight"
    index = pruned / "model.safetensors.index.json"
    written = json.loads(index.read_text())
    path = pruned / written["weight_map"].pop(name)
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    index.write_text(json.dumps(written))
    with pytest.raises(InputError, match=r"weights lack model\.language_model\.norm\.weight, 1 in"):
        gate(dense_dir, pruned, calibration)


@pytest.mark.parametrize("dtype", ["keep", "bfloat16"])
def test_replaced_values_are_put_in_on_the_dense_side_too(
    dense_dir: Path, calibration: Path, tmp_path: Path, dtype: Any
) -> None:
    name = f"{PREFIX}.4.mlp.down_proj.weight"
    value = load_file(dense_dir / "model.safetensors")[name] * 1.5
    save_file({name: value}, tmp_path / "new.safetensors")
    replaced = {name: tmp_path / "new.safetensors"}
    interlace.export(dense_dir, PLAN, tmp_path / "pruned", replaced=replaced, dtype=dtype)
    gate(dense_dir, tmp_path / "pruned", calibration, replaced=replaced, dtype=dtype)
    with pytest.raises(ContractError, match=r"first at layer 3 \(dense layer 4\)"):
        gate(dense_dir, tmp_path / "pruned", calibration, dtype=dtype)


def test_a_replaced_tensor_that_the_model_does_not_have_is_named(
    dense_dir: Path, pruned: Path, calibration: Path, tmp_path: Path
) -> None:
    save_file({f"{PREFIX}.0.ghost": torch.zeros(1)}, tmp_path / "new.safetensors")
    with pytest.raises(ContractError, match=r"has no parameter .*layers\.0\.ghost to check it by"):
        replaced = {f"{PREFIX}.0.ghost": tmp_path / "new.safetensors"}
        gate(dense_dir, pruned, calibration, replaced=replaced)


def test_no_samples_turn_it_off(pruned: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert gate(nowhere, pruned, nowhere, parity_samples=0).as_json() == {"samples": 0}


def test_no_rows_to_check_on_is_one_line(dense_dir: Path, pruned: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows to check the export on"):
        gate(dense_dir, pruned, tmp_path)


@pytest.mark.parametrize("samples", [1, 2, 4, 9, 50])
def test_the_shortest_and_the_longest_prompt_are_among_the_samples(
    processor: Any, calibration: Path, samples: int
) -> None:
    prompts, _ = drawn_prompts(processor, calibration, 9, 999)
    everything = sorted(prompt.tokens for prompt in prompts)
    assert len(everything) == 9
    drawn = drawn_prompts(processor, calibration, samples, 999)[0]
    lengths = sorted(prompt.tokens for prompt in drawn)
    assert len({prompt.sample_id for prompt in drawn}) == len(drawn) == min(samples, 9)
    assert lengths[-1] == everything[-1]
    assert samples == 1 or lengths[0] == everything[0]


def test_a_row_that_cannot_be_read_is_left_out_and_counted(
    processor: Any, calibration: Path, tmp_path: Path
) -> None:
    rows = [row | {"sample_id": f"id{number}"} for number, row in enumerate(models.rows(9))]
    rows[1]["images"][0]["bytes"] = b"no picture"
    write_rows(iter(rows), tmp_path / "rows")
    prompts, left_out = drawn_prompts(processor, tmp_path / "rows", 9, 999)
    assert left_out == 1
    assert {prompt.sample_id for prompt in prompts} == {f"id{n}" for n in range(9) if n != 1}


def test_prompts_longer_than_the_longest_are_left_out(processor: Any, calibration: Path) -> None:
    prompts, _ = drawn_prompts(processor, calibration, 9, 999)
    everything = sorted(prompt.tokens for prompt in prompts)
    prompts, left_out = drawn_prompts(processor, calibration, 9, everything[4])
    assert max(prompt.tokens for prompt in prompts) == everything[4]
    assert left_out == sum(tokens > everything[4] for tokens in everything)
    with pytest.raises(InputError, match=r"none of 9 rows .* longer than max_length = 1; "):
        drawn_prompts(processor, calibration, 9, 1)


def test_prompts_have_pictures_among_them(processor: Any, calibration: Path) -> None:
    drawn = drawn_prompts(processor, calibration, 4, 999)[0]
    assert any("pixel_values" in prompt.inputs for prompt in drawn)
    assert all("labels" not in prompt.inputs for prompt in drawn)


def test_the_first_place_where_states_part_and_by_how_much() -> None:
    one = [torch.zeros(1, 2, 3) for _ in range(3)]
    other = [state.clone() for state in one]
    assert first_difference(one, other) is None
    other[1][0, 1, 2] = -0.5
    other[1][0, 0, 0] = 0.25
    other[2] += 9
    assert first_difference(one, other) == (1, 0.5)


def test_what_is_not_finite_counts_as_infinitely_far_unless_it_is_the_same() -> None:
    one = [torch.tensor([torch.nan, 1.0])]
    assert first_difference(one, [one[0].clone()]) is None
    assert first_difference(one, [torch.tensor([0.0, 1.0])]) == (0, torch.inf)


def test_a_refused_export_leaves_the_last_one(
    dense_dir: Path, pruned: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(pruned)

    def check(written: Path) -> dict[str, Any]:
        nudge(written, f"{PREFIX}.2.mlp.up_proj.weight")
        return gate(dense_dir, written, calibration)

    with pytest.raises(ContractError, match=r"first at layer 2 .* it was not put in place"):
        interlace.export(dense_dir, PLAN, pruned, check=check)
    assert digests(pruned) == before
    assert [path.name for path in pruned.parent.iterdir()] == ["pruned"]
