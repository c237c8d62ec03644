"""FLOPs by formula beside torch's counter, on tiny models with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import row, tiny_qwen3_vl
from transformers import AutoModelForImageTextToText

from interlace.model.bypass import bypassed
from interlace.model.chat import encode_prompt
from interlace.model.open import open_processor
from interlace.speed import flops
from interlace.speed.clock import count_flops
from interlace.speed.flops import Work
from interlace.speed.requests import TimedRequest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen3_vl(tmp_path_factory.mktemp("checkpoint") / "model", layers=4)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(checkpoint).eval()


def request(checkpoint: Path, images: int) -> dict[str, torch.Tensor]:
    return TimedRequest(
        "a", encode_prompt(open_processor(checkpoint), row(3, images=images))
    ).batch(1)


@pytest.mark.parametrize("images", [0, 1, 2])
def test_a_whole_request_counts_as_the_formula_says(
    model: Any, checkpoint: Path, images: int
) -> None:
    inputs = request(checkpoint, images)
    grids = inputs["image_grid_thw"].tolist() if images else []
    patches = [time * height * width for time, height, width in grids]
    tokens = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        work = count_flops(model, inputs)
    assert work.total == pytest.approx(
        flops.qwen3_vl_flops(model.config, tokens, patches)
        - (0 if images else flops.vision_flops(model.config.vision_config, [])),
        rel=0.01,
    )


def test_dropped_layers_count_exactly_as_the_formula_says(model: Any, checkpoint: Path) -> None:
    inputs = request(checkpoint, 1)
    text, tokens = model.config.text_config, inputs["input_ids"].shape[1]
    with torch.inference_mode():
        dense = count_flops(model, inputs, new_tokens=2)
        with bypassed(model, [3]):
            pruned = count_flops(model, inputs, new_tokens=2)
    assert dense.total - pruned.total == flops.layer_flops(text, tokens)
    assert dense.prefill - pruned.prefill == flops.layer_flops(text, tokens)
    assert dense.decode - pruned.decode == flops.layer_flops(text, 1, cached=tokens)


@given(
    layers=st.integers(2, 40),
    data=st.data(),
    layer=st.integers(1, 10**9),
    rest=st.integers(0, 10**10),
)
def test_the_ideal_follows_amdahls_law(layers: int, data: Any, layer: int, rest: int) -> None:
    drops = data.draw(st.integers(0, layers - 1))
    dense = Work(total=layers * layer + rest, prefill=layers * layer)
    pruned = Work(total=(layers - drops) * layer + rest, prefill=(layers - drops) * layer)
    found = flops.ideals([(dense, pruned)])
    share = dense.prefill / dense.total
    assert found["ttft_ideal"] == pytest.approx(1 / (1 - share * drops / layers))
    assert found["prefill_ideal"] == pytest.approx(layers / (layers - drops))
    assert "decode_ideal" not in found


def test_ideals_are_medians_over_requests() -> None:
    works = [(Work(total=ratio, prefill=1), Work(total=1, prefill=1)) for ratio in (2, 3, 10)]
    assert flops.ideals(works)["ttft_ideal"] == 3
