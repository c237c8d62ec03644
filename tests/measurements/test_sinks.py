"""Tokens that may carry a massive activation: their statistics, and the layers to blame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import family_models
import models
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interlace.measurements.cosines import measure_batch
from interlace.measurements.sinks import sink_statistics
from interlace.measurements.tables import SINKS, similarity_table, sinks_table
from interlace.model.chat import Inputs, collate, encode_prompt
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model
from interlace.model.states import hooked
from interlace.params.measuring import Collect
from interlace.scores.average import score
from interlace.scores.sinks import SinkLayers, sink_layers
from interlace.scores.table import Scores, read_scores

LAYERS, WIDTH = 6, 32
DEEPSTACK = {True: "dense", False: "plain"}
HUGE = 50_000.0  # norm of what a planted layer writes; others have norms of 300 to 800


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow_statistics(x: Tensor, y: Tensor, attended: Tensor) -> tuple[list[float], int]:
    """The statistics of one row at one layer, token by token."""
    pairs = [(a.double(), b.double()) for a, b, t in zip(x, y, attended, strict=True) if t]
    norms = [(math.sqrt(float(a @ a)), math.sqrt(float(b @ b))) for a, b in pairs]
    middle = (len(pairs) - 1) // 2
    row = [sorted(side)[middle] for side in zip(*norms, strict=True)]
    largest = max(range(len(pairs)), key=lambda t: max(norms[t]))
    for t in (0, largest):
        row += [float(pairs[t][0] @ pairs[t][1]) / (norms[t][0] * norms[t][1]), *norms[t]]
    return row, largest


@settings(max_examples=25, deadline=None)
@given(
    layers=st.integers(1, 3), tokens=st.integers(1, 6), pads=st.integers(0, 3), left=st.booleans()
)
def test_statistics_are_those_of_single_tokens(
    layers: int, tokens: int, pads: int, left: bool
) -> None:
    states = list(random(layers + 1, 2, tokens + pads, 5, seed=tokens))
    attended = torch.ones(2, tokens + pads).bool()
    attended[0, : pads if left else 0] = attended[0, tokens + (pads if left else 0) :] = False
    for state in states:
        state[~attended] = math.nan  # padding is not looked at
    statistics, positions = sink_statistics(states[:-1], states[1:], attended)
    for row, layer in np.ndindex(2, layers):
        expected, largest = slow_statistics(
            states[layer][row], states[layer + 1][row], attended[row]
        )
        np.testing.assert_allclose(statistics[row, layer], expected, rtol=1e-5, atol=1e-6)
        assert positions[row, layer] == largest


def test_a_state_of_zeros_has_cosine_0() -> None:
    zeros, ones = torch.zeros(1, 2, 4), torch.ones(1, 2, 4)
    statistics, _ = sink_statistics([zeros], [ones], torch.ones(1, 2).bool())
    assert statistics[0, 0].tolist() == [0, 2, 0, 0, 2, 0, 0, 2]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """That model without DeepStack."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    folder = models.tiny_qwen3_vl(tmp_path_factory.mktemp("plain"), layers=LAYERS)
    config = Qwen3VLConfig.from_pretrained(folder)
    config.vision_config.deepstack_visual_indexes = []
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, config=config)
    model.save_pretrained(folder)
    return open_model(folder, dtype="float32")


@contextmanager
def planted(model: Any, start: int, end: int | None, carriers: Tensor) -> Iterator[None]:
    """A layer whose MLP writes a huge vector into some tokens [B, T]; one that takes it back."""
    vector = random(WIDTH, seed=7)
    update = carriers[..., None] * vector * (HUGE / vector.norm())  # [B, T, d]
    signs = {start: 1.0} | ({} if end is None else {end: -1.0})
    mlps = {layer: decoder_layers(model)[layer].mlp for layer in signs}
    with hooked(mlps, on_return=lambda layer, output: output + signs[layer] * update):
        yield


def scored(measurements: dict[str, Any], folder: Path, mode: str = "residual") -> Scores:
    """The scores of a measured batch."""
    names = "sample_id", "domain", "task", "source"
    rows = [dict.fromkeys(names, "native") | {"sample_id": str(i)} for i in range(99)]
    rows = rows[: len(measurements["counts"])]
    counts, spans, cosines = (measurements[name] for name in ("counts", "spans", "cosines"))
    tables = {
        "similarity": similarity_table(rows, counts, spans, cosines),
        "sinks": sinks_table(rows, measurements["sinks"], measurements["largest"]),
    }
    for name, table in tables.items():
        (folder / name).mkdir()
        n_layers = measurements["sinks"].shape[1] + (mode == "reference")
        table = table.replace_schema_metadata({"n_layers": str(n_layers), "mode": mode})
        pq.write_table(table, folder / name / "part-00000.parquet")
    return read_scores(score(folder / "similarity", sinks=folder / "sinks"))


def batch_of(processor: Any, side: str) -> Inputs:
    rows = [models.row(seed, images=seed % 3) for seed in range(5)]
    return collate([encode_prompt(processor, row) for row in rows], pad_token_id=0, side=side)


def first_tokens(batch: Inputs) -> Tensor:
    attended = batch["attention_mask"]
    return attended * (attended.cumsum(-1) == 1)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("deepstack", [True, False])
@pytest.mark.parametrize("token", ["first", "delimiter"])
@pytest.mark.parametrize("start", range(LAYERS - 1))
def test_a_planted_sink_is_found_wherever_it_sits(
    request: pytest.FixtureRequest,
    processor: Any,
    tmp_path: Path,
    start: int,
    token: str,
    deepstack: bool,
    side: str,
) -> None:
    model, batch = request.getfixturevalue(DEEPSTACK[deepstack]), batch_of(processor, side)
    assert bool(model.config.vision_config.deepstack_visual_indexes) == deepstack
    delimiter = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    carriers = first_tokens(batch) if token == "first" else (batch["input_ids"] == delimiter).int()
    assert (carriers.sum(-1) > 0).all()
    with planted(model, start, LAYERS - 1, carriers):
        measurements = measure_batch(model, batch, Collect(max_span=3))
    expected = SinkLayers((start,), (LAYERS - 1,))
    assert sink_layers(scored(measurements, tmp_path)) == expected
    positions = (batch["attention_mask"].cumsum(-1) - 1)[torch.arange(5), carriers.argmax(-1)]
    assert measurements["largest"][:, start].tolist() == positions.tolist()


def test_a_sink_that_nothing_ends_has_no_end(dense: Any, processor: Any, tmp_path: Path) -> None:
    batch = batch_of(processor, "right")
    with planted(dense, 4, None, first_tokens(batch)):
        measurements = measure_batch(dense, batch, Collect(max_span=3))
    assert sink_layers(scored(measurements, tmp_path)) == SinkLayers((4,), ())


def test_a_sink_is_found_among_true_inputs_alone(
    dense: Any, processor: Any, tmp_path: Path
) -> None:
    batch = batch_of(processor, "right")
    with planted(dense, 3, 4, first_tokens(batch)):
        measurements = measure_batch(dense, batch, Collect(max_span=3, mode="reference"))
    assert measurements["sinks"].shape == (5, LAYERS - 1, 8)
    assert sink_layers(scored(measurements, tmp_path, "reference")) == SinkLayers((3,), (4,))


@pytest.mark.parametrize("name", sorted(family_models.TINY))
def test_nothing_is_flagged_on_a_random_model(name: str, tmp_path: Path) -> None:
    model = open_model(family_models.save(name, tmp_path / "model"), dtype="float32")
    measurements = measure_batch(model, family_models.inputs(name), Collect(max_span=3))
    assert sink_layers(scored(measurements, tmp_path)) == SinkLayers()


def test_the_table_holds_a_row_per_sample_and_layer(dense: Any, processor: Any) -> None:
    measurements = measure_batch(dense, batch_of(processor, "right"), Collect(max_span=3))
    rows = [{"sample_id": f"{i}", "domain": "d", "task": "t", "source": "s"} for i in range(5)]
    table = sinks_table(rows, measurements["sinks"], measurements["largest"])
    assert table.schema == SINKS
    keys = [[f"{i}", layer] for i in range(5) for layer in range(LAYERS)]
    assert table.select(["sample_id", "layer"]).to_pandas().to_numpy().tolist() == keys
    assert table["largest_out"][7].as_py() == pytest.approx(measurements["sinks"][1, 1, 7])
