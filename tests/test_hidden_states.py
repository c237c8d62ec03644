"""One pass over the calibration set, against the same numbers worked out slowly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import models
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from drawn_rows import Draw
from hypothesis import given
from hypothesis import strategies as st

from interlace import hidden_states
from interlace.chat import Inputs, collate, encode_prompt
from interlace.errors import ContractError, InputError
from interlace.families import decoder_layers
from interlace.hidden_states import (
    batches,
    collect,
    last_tokens,
    measure_batch,
    residual_states,
    span_cosines,
    true_states,
)
from interlace.outputs import whole
from interlace.params import Collect
from interlace.probes import Task, probe
from interlace.samples import iterate, write_rows
from interlace.sources import open_model

LAYERS, WIDTH = 6, 32
ABOUT = {"model": "org/name", "revision": "abc", "n_layers": "6", "deepstack_layers": "3"}


def batch_of(processor: Any, *rows: dict[str, Any]) -> Inputs:
    return collate([encode_prompt(processor, row) for row in rows], pad_token_id=0)


@pytest.fixture(scope="module")
def with_image(processor: Any) -> Inputs:
    return batch_of(processor, models.row(1, images=2))


@torch.inference_mode()
def states_by_hand(model: Any, batch: Inputs) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Walk through the decoder, adding the visual features after its first layers."""
    base, decoder = model.model, model.model.language_model
    vision = base.get_image_features(batch["pixel_values"], batch["image_grid_thw"])
    is_image = batch["input_ids"] == model.config.image_token_id
    state = base.get_input_embeddings()(batch["input_ids"]).clone()
    state[is_image] = torch.cat(vision.pooler_output)
    positions = base.compute_3d_position_ids(
        input_ids=batch["input_ids"],
        inputs_embeds=state,
        image_grid_thw=batch["image_grid_thw"],
        attention_mask=batch["attention_mask"],
        mm_token_type_ids=batch["mm_token_type_ids"],
    )
    rotation = decoder.rotary_emb(state, positions)
    inputs, outputs = [], []
    for i, layer in enumerate(decoder.layers):
        inputs.append(state.clone())
        state = layer(state, attention_mask=None, position_embeddings=rotation)
        outputs.append(state.clone())
        if i < len(vision.deepstack_features):
            state = state.clone()
            state[is_image] += torch.cat(vision.deepstack_features[i])
    return inputs, outputs


@pytest.mark.parametrize("side", [0, 1], ids=["inputs", "outputs"])
def test_hooks_see_the_true_states(dense: Any, with_image: Inputs, side: int) -> None:
    with torch.inference_mode():
        found = residual_states(dense, with_image)[side]
    expected = states_by_hand(dense, with_image)[side]
    for i in range(LAYERS):
        torch.testing.assert_close(found[i], expected[i], rtol=1e-5, atol=1e-5)


def test_visual_features_lie_between_the_first_three_layers(dense: Any, with_image: Inputs) -> None:
    with torch.inference_mode():
        inputs, outputs = residual_states(dense, with_image)
    same = [torch.equal(inputs[i + 1], outputs[i]) for i in range(LAYERS - 1)]
    assert same == [False, False, False, True, True]


def test_no_hook_is_left_behind(dense: Any, with_image: Inputs) -> None:
    with pytest.raises(RuntimeError), true_states(dense):
        raise RuntimeError
    assert not any(
        layer._forward_hooks or layer._forward_pre_hooks for layer in decoder_layers(dense)
    )


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    lengths = [math.sqrt(sum(x * x for x in v.tolist())) for v in (a, b)]
    return dot / (lengths[0] * lengths[1])


def slow_span_cosine(
    inputs: list[torch.Tensor], outputs: list[torch.Tensor], first: int, span: int, where: Any
) -> float:
    """`mean over tokens t of cos(x_i[t], y_{i+p-1}[t])` of one sample, token by token."""
    tokens = [t for t, counted in enumerate(where.tolist()) if counted]
    x, y = inputs[first][0], outputs[first + span - 1][0]
    return sum(cosine(x[t], y[t]) for t in tokens) / len(tokens)


@pytest.mark.parametrize("kind", ["all", "vision", "text"])
def test_span_cosines_are_means_over_tokens(dense: Any, with_image: Inputs, kind: str) -> None:
    is_image = with_image["input_ids"][0] == dense.config.image_token_id
    where = {"all": is_image | ~is_image, "vision": is_image, "text": ~is_image}[kind]
    inputs, outputs = states_by_hand(dense, with_image)
    measured = measure_batch(dense, with_image, "residual", max_span=3)
    place = ["all", "vision", "text"].index(kind)
    for number, (first, span) in enumerate(measured["spans"].tolist()):
        expected = slow_span_cosine(inputs, outputs, first, span, where)
        assert measured["cosines"][number, 0, place] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("max_span", [3, 4, LAYERS, LAYERS + 3, None])
def test_every_span_is_measured_once(dense: Any, with_image: Inputs, max_span: int | None) -> None:
    spans = measure_batch(dense, with_image, "residual", max_span)["spans"].tolist()
    longest = min(max_span or LAYERS, LAYERS)
    expected = [[i, p] for p in range(1, longest + 1) for i in range(LAYERS - p + 1)]
    assert sorted(spans) == sorted(expected)


@pytest.mark.parametrize("max_span", [2, None])
@pytest.mark.parametrize("chunk", [1, 4 * 8 * 7, 2**25], ids=["token", "seven tokens", "all"])
def test_cosines_do_not_depend_on_how_many_tokens_are_taken_at_once(
    monkeypatch: pytest.MonkeyPatch, chunk: int, max_span: int | None
) -> None:
    monkeypatch.setattr(hidden_states, "_CHUNK", chunk)
    states = torch.randn(2, 4, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    inputs, outputs = (list(side) for side in states)  # 4 layers, [3, 5, 8] each
    spans, cosines = span_cosines(inputs, outputs, max_span)
    assert len(spans) == (4 + 3 if max_span else 4 + 3 + 2 + 1)
    for number, (first, span) in enumerate(spans.tolist()):
        expected = torch.cosine_similarity(inputs[first], outputs[first + span - 1], dim=-1)
        torch.testing.assert_close(cosines[number], expected, rtol=0, atol=1e-6)


def test_cosines_of_half_precision_states_are_worked_out_in_float32() -> None:
    state = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    _, cosines = span_cosines([state], [state], None)
    assert cosines.dtype == torch.float32
    torch.testing.assert_close(cosines, torch.ones(1, 1, 3), rtol=0, atol=1e-6)


def test_the_last_cosine_is_that_of_the_last_token(dense: Any, with_image: Inputs) -> None:
    inputs, outputs = states_by_hand(dense, with_image)
    measured = measure_batch(dense, with_image, "residual", None)
    for number, (first, span) in enumerate(measured["spans"].tolist()):
        expected = cosine(inputs[first][0, -1], outputs[first + span - 1][0, -1])
        assert measured["cosines"][number, 0, 3] == pytest.approx(expected, abs=1e-5)


def test_the_last_token_is_found_wherever_the_padding_lies() -> None:
    attended = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 0]]).bool()
    assert last_tokens(attended).int().tolist() == [
        [0, 1, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 1],
        [0, 1, 0, 0],
    ]


@pytest.mark.parametrize("mode", ["residual", "reference"])
def test_a_padded_batch_measures_as_rows_one_by_one(dense: Any, processor: Any, mode: str) -> None:
    rows = models.rows(6)
    together = measure_batch(dense, batch_of(processor, *rows), mode, 3)
    for i, row in enumerate(rows):
        alone = measure_batch(dense, batch_of(processor, row), mode, 3)
        np.testing.assert_allclose(
            together["cosines"][:, i], alone["cosines"][:, 0], rtol=0, atol=1e-5
        )
        np.testing.assert_allclose(
            together["pooled"][:, :, i], alone["pooled"][:, :, 0], rtol=1e-4, atol=1e-4
        )
        assert together["n_tokens"][i] == alone["n_tokens"][0]
        assert together["n_vision_tokens"][i] == alone["n_vision_tokens"][0] == 16 * (i % 3)


def test_vision_and_text_tokens_make_up_all(dense: Any, with_image: Inputs) -> None:
    measured = measure_batch(dense, with_image, "residual", 3)
    n, n_vision = measured["n_tokens"][0], measured["n_vision_tokens"][0]
    every, vision, text, _ = measured["cosines"][:, 0].T
    np.testing.assert_allclose(n * every, n_vision * vision + (n - n_vision) * text, rtol=1e-6)


def test_pooled_states_are_means_over_tokens(dense: Any, with_image: Inputs) -> None:
    expected = states_by_hand(dense, with_image)
    pooled = measure_batch(dense, with_image, "residual", 3)["pooled"]
    for side in (0, 1):
        for i in range(LAYERS):
            np.testing.assert_allclose(
                pooled[side, i, 0], expected[side][i][0].mean(0).numpy(), rtol=1e-4, atol=1e-4
            )


def test_reference_scores_are_those_of_output_hidden_states(dense: Any, with_image: Inputs) -> None:
    measured = measure_batch(dense, with_image, "reference", 3)
    with torch.inference_mode():
        states = dense.model(**with_image, output_hidden_states=True).hidden_states
    expected = {
        (i, p): torch.cosine_similarity(states[i][0], states[i + p][0], dim=-1).mean().item()
        for p in (1, 2, 3)
        for i in range(LAYERS - p)
    }
    spans = map(tuple, measured["spans"].tolist())
    found = dict(zip(spans, measured["cosines"][:, 0, 0], strict=True))
    assert found.keys() == expected.keys()
    assert all(found[span] == pytest.approx(expected[span], abs=1e-5) for span in expected)


def test_reference_scores_leave_out_the_last_layer(dense: Any, with_image: Inputs) -> None:
    spans = measure_batch(dense, with_image, "reference", 3)["spans"].tolist()
    assert max(first + span - 1 for first, span in spans) == LAYERS - 2


def test_reference_scores_differ_on_deepstack_layers(dense: Any, with_image: Inputs) -> None:
    true = measure_batch(dense, with_image, "residual", 3)
    published = measure_batch(dense, with_image, "reference", 3)
    assert abs(true["cosines"][1, 0, 0] - published["cosines"][1, 0, 0]) > 1e-4


@given(st.lists(st.integers(1, 60), min_size=1, max_size=50), st.integers(1, 200))
def test_batches_stay_within_the_budget_and_cover_every_row(
    lengths: list[int], tokens: int
) -> None:
    groups = batches(lengths, tokens)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        padded = max(lengths[i] for i in group) * len(group)
        assert padded <= tokens or len(group) == 1


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    rows = models.rows(10)
    rows[7]["texts"][0]["user"] = "What number is 7"  # the only prompt with this digit
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    Draw(folder)(folder / "rows.parquet", calibration_fraction=1.0)
    return folder / "calibration"


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory, calibration: Path) -> Path:
    """Two tasks asked about the images of four calibration rows."""
    folder = tmp_path_factory.mktemp("probes") / "probes"
    tasks = (
        Task(task="answer", domain="math", prompt="left {question} right"),
        Task(task="caption", domain="nonmath", prompt="What is in this image"),
    )
    rows = [row for row in iterate(calibration) if row["images"]][:4]
    write_rows((probe(row, task) for row in rows for task in tasks), folder)
    return folder


def run_collect(
    model: Any, processor: Any, rows: Path | list[Path], folder: Path, **params: Any
) -> dict[str, bytes]:
    """Collects into `folder`; returns the written bytes by name."""
    collect(
        model,
        processor,
        rows if isinstance(rows, list) else [rows],
        folder / "out",
        params=Collect(**({"batch_tokens": 256, "max_span": 3, "pooled": "all"} | params)),
        scratch=folder / "scratch",
        provenance=ABOUT,
    )
    files = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
    return {path.relative_to(folder / "out").as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def collected(
    dense: Any, processor: Any, calibration: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("collected")
    run_collect(dense, processor, calibration, folder)
    return folder / "out"


def test_a_missing_length_measures_every_span(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path
) -> None:
    run_collect(dense, processor, calibration, tmp_path, max_span=None)
    table = pq.read_table(tmp_path / "out/similarity")
    assert table.num_rows == 10 * LAYERS * (LAYERS + 1) // 2


def test_calibration_rows_and_probes_are_measured_in_one_go(
    dense: Any, processor: Any, calibration: Path, probes: Path, collected: Path, tmp_path: Path
) -> None:
    run_collect(dense, processor, [calibration, probes], tmp_path)
    columns = ["sample_id", "domain", "task"]
    asked = [*iterate(calibration), *iterate(probes)]
    table = pq.read_table(tmp_path / "out/similarity").to_pandas()
    found = table[columns].drop_duplicates().to_numpy().tolist()
    assert found == [[row[name] for name in columns] for row in asked]
    native = table[table["domain"] == "native"]
    alone = pq.read_table(collected / "similarity").to_pandas()
    np.testing.assert_allclose(native["cosine"], alone["cosine"], atol=1e-5)


def test_probes_measure_the_same_whatever_the_batch(
    dense: Any, processor: Any, calibration: Path, probes: Path, tmp_path: Path
) -> None:
    read = []
    for name, tokens in (("one", 1), ("many", 4096)):
        run_collect(dense, processor, [calibration, probes], tmp_path / name, batch_tokens=tokens)
        table = pq.read_table(tmp_path / name / "out/similarity").to_pandas()
        read.append(table[table["domain"] != "native"][["cosine", "cosine_last"]].to_numpy())
    assert len(read[0]) == 8 * (6 + 5 + 4)
    np.testing.assert_allclose(read[0], read[1], atol=1e-5)


def test_without_rows_there_is_nothing_to_measure(
    dense: Any, processor: Any, tmp_path: Path
) -> None:
    write_rows(iter(()), tmp_path / "empty")
    with pytest.raises(InputError, match=r"empty: no rows to measure; run `dvc repro sample`"):
        run_collect(dense, processor, tmp_path / "empty", tmp_path)


def test_similarity_has_the_contract_s_columns(collected: Path) -> None:
    table = pq.read_table(collected / "similarity")
    assert table.column_names == [
        *("sample_id", "domain", "task", "source", "n_tokens", "n_vision_tokens"),
        *("first", "span", "cosine", "cosine_vision", "cosine_text", "cosine_last"),
    ]
    assert table.num_rows == 10 * (6 + 5 + 4)


def test_samples_keep_their_order(collected: Path, calibration: Path) -> None:
    asked = pq.read_table(calibration, columns=["sample_id"])["sample_id"].to_pylist()
    found = pq.read_table(collected / "similarity")["sample_id"].to_pylist()
    assert list(dict.fromkeys(found)) == asked


def test_similarity_holds_what_was_measured(
    collected: Path, dense: Any, processor: Any, calibration: Path
) -> None:
    row = pq.read_table(calibration).to_pylist()[4]
    measured = measure_batch(dense, batch_of(processor, row), "residual", 3)
    table = pq.read_table(collected / "similarity").to_pandas()
    mine = table[table["sample_id"] == row["sample_id"]]
    assert mine[["first", "span"]].to_numpy().tolist() == measured["spans"].tolist()
    found = mine[["cosine", "cosine_vision", "cosine_text", "cosine_last"]].to_numpy()
    np.testing.assert_allclose(found, measured["cosines"][:, 0], atol=1e-5)


def test_a_row_without_images_has_no_vision_cosine(collected: Path) -> None:
    table = pq.read_table(collected / "similarity")
    for row in table.to_pylist():
        assert (row["cosine_vision"] is None) == (row["n_vision_tokens"] == 0)


def test_pooled_has_one_row_per_sample_and_layer(collected: Path) -> None:
    table = pq.read_table(collected / "pooled")
    keys = list(zip(*table.select(["sample_id", "layer"]).to_pydict().values(), strict=True))
    assert len(set(keys)) == len(keys) == 10 * LAYERS
    for side in ("input", "output"):
        assert table.schema.field(side).type == pa.list_(pa.float16(), WIDTH)


@pytest.mark.parametrize(
    ("pooled", "kept"), [("all", 10 + 8), ("probes", 8), ("none", 0)], ids=["all", "probes", "none"]
)
def test_pooled_states_are_kept_as_asked(
    dense: Any,
    processor: Any,
    calibration: Path,
    probes: Path,
    tmp_path: Path,
    pooled: str,
    kept: int,
) -> None:
    written = run_collect(dense, processor, [calibration, probes], tmp_path, pooled=pooled)
    assert ("pooled/part-00000.parquet" in written) == bool(kept)
    if kept:
        table = pq.read_table(tmp_path / "out/pooled").to_pandas()
        assert len(table[["sample_id", "layer"]].drop_duplicates()) == len(table) == kept * LAYERS
        assert pooled == "all" or "native" not in set(table["domain"])


def test_kept_states_are_those_of_their_sample(
    dense: Any, processor: Any, calibration: Path, probes: Path, tmp_path: Path
) -> None:
    run_collect(dense, processor, [calibration, probes], tmp_path, pooled="probes")
    row = list(iterate(probes))[5]
    expected = measure_batch(dense, batch_of(processor, row), "residual", 3)["pooled"][:, :, 0]
    table = pq.read_table(tmp_path / "out/pooled").to_pandas()
    mine = table[table["sample_id"] == row["sample_id"]]
    assert mine["layer"].tolist() == list(range(LAYERS))
    for side, name in enumerate(("input", "output")):
        np.testing.assert_allclose(np.stack(mine[name]), expected[side], rtol=2e-3, atol=2e-3)


def test_a_pooled_state_that_float16_cannot_hold_names_the_sample() -> None:
    with pytest.raises(ContractError, match=r"sample abc: .* set collect\.pooled to none"):
        hidden_states._halved(np.full((2, 1, 3), 7e4), "abc")


@pytest.mark.parametrize("kind", ["similarity", "pooled"])
def test_files_say_how_they_were_measured(collected: Path, kind: str) -> None:
    metadata = pq.read_schema(next((collected / kind).glob("*"))).metadata
    said = {key.decode(): value.decode() for key, value in metadata.items()}
    assert said.items() >= (ABOUT | {"mode": "residual", "dtype": "float32"}).items()
    assert said["code_version"]


def test_batch_size_does_not_matter_to_the_measurements(
    dense: Any, processor: Any, calibration: Path, collected: Path, tmp_path: Path
) -> None:
    run_collect(dense, processor, calibration, tmp_path, batch_tokens=1)
    one, many = (
        pq.read_table(place / "similarity")["cosine"].to_numpy()
        for place in (tmp_path / "out", collected)
    )
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_an_interrupted_run_goes_on_and_writes_the_same_bytes(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden_states, "WINDOW", 4)
    expected = run_collect(dense, processor, calibration, tmp_path / "whole")
    assert len([name for name in expected if name.startswith("similarity")]) == 3

    measured: list[str] = []
    encode = hidden_states._encoded

    def encoded(processor: Any, row: dict[str, Any], max_length: int) -> Inputs:
        measured.append(row["sample_id"])
        if len(measured) == 7:  # in the second window
            raise KeyboardInterrupt
        return encode(processor, row, max_length)

    monkeypatch.setattr(hidden_states, "_encoded", encoded)
    with pytest.raises(KeyboardInterrupt):
        run_collect(dense, processor, calibration, tmp_path / "broken")
    assert not (tmp_path / "broken/out").exists()
    finished, measured[:] = measured[:4], ["resumed"] * 7
    assert run_collect(dense, processor, calibration, tmp_path / "broken") == expected
    assert not set(finished) & set(measured)
    assert len(measured) == 7 + 6


def test_a_finished_run_leaves_no_scratch(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path
) -> None:
    run_collect(dense, processor, calibration, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_earlier_output_is_replaced_not_mixed(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path
) -> None:
    with whole(tmp_path / "out") as partial:
        (partial / "similarity").mkdir(parents=True)
        (partial / "similarity/part-00009.parquet").write_text("stale")
    written = run_collect(dense, processor, calibration, tmp_path)
    assert "similarity/part-00009.parquet" not in written


def test_a_state_that_is_not_finite_names_the_sample(
    dense_dir: Path, processor: Any, calibration: Path, tmp_path: Path
) -> None:
    model = open_model(dense_dir, dtype="float32")
    seven = processor.tokenizer.convert_tokens_to_ids("7")
    model.get_input_embeddings().weight.data[seven] = math.inf
    rows = pq.read_table(calibration).to_pylist()
    bad = next(row["sample_id"] for row in rows if "7" in row["texts"][0]["user"])
    with pytest.raises(ContractError, match=f"sample {bad}: .* not finite in float32"):
        run_collect(model, processor, calibration, tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_is_too_long_names_the_sample_and_its_source(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"sample [0-9a-f]{16} of made_up: .* max_length = 8"):
        run_collect(dense, processor, calibration, tmp_path, max_length=8)
