from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest
from models import row, rows, tiny_qwen3_vl
from pydantic import ValidationError

from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS, find_benchmark
from interlace.model.open import open_processor
from interlace.params.timing import RequestShape, Ttft
from interlace.speed import requests as request_shapes
from interlace.speed.requests import SHAPES, Shape


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> object:
    return open_processor(
        tiny_qwen3_vl(tmp_path_factory.mktemp("model") / "model", layers=1), max_pixels=10**6
    )


def test_shapes_are_of_benchmarks_and_can_all_be_asked_for() -> None:
    assert set(SHAPES) == set(get_args(RequestShape)) <= set(BENCHMARKS)


def test_shapes_go_by_the_names_that_evaluation_takes() -> None:
    named = ["V*", "MIA-Bench", "pope", "HR-Bench 4K"]
    assert Ttft(shapes=named).shapes == ("VStar", "MIABench", "POPE", "HRBench4K")  # type: ignore[arg-type]
    assert [find_benchmark(name).name for name in named] == [
        "VStar",
        "MIABench",
        "POPE",
        "HRBench4K",
    ]
    with pytest.raises(ValidationError, match="'AI2D', 'ChartQA'"):
        Ttft(shapes=["POP"])  # type: ignore[list-item,arg-type]


def test_a_typical_request_has_the_shapes_image_and_text(processor: object) -> None:
    made = {
        tokens: request_shapes.request_of(processor, "a", Shape(64, 32, tokens)).encoded
        for tokens in (10, 40)
    }
    assert len(made[40]["input_ids"]) - len(made[10]["input_ids"]) == 30
    assert made[10]["pixel_values"].shape == made[40]["pixel_values"].shape


def test_a_larger_image_makes_a_longer_request(processor: object) -> None:
    small, large = request_shapes.typical_requests(processor, ["ScienceQA", "POPE"])
    assert small.benchmark == "ScienceQA"
    assert len(small.encoded["pixel_values"]) < len(large.encoded["pixel_values"])


def test_an_unknown_benchmark_is_the_users_mistake(processor: object) -> None:
    with pytest.raises(InputError, match="'POP' is not one of AI2D"):
        request_shapes.typical_requests(processor, ["POP"])


def test_rows_are_drawn_by_the_seed(processor: object) -> None:
    def lengths(seed: int) -> list[int]:
        drawn = request_shapes.drawn_requests(processor, rows(30), 4, seed)
        return [len(request.encoded["input_ids"]) for request in drawn]

    assert lengths(0) == lengths(0) != lengths(1)
    assert len(lengths(0)) == 4


def test_rows_are_drawn_evenly_from_their_sources(processor: object) -> None:
    many = [row(seed, source="often" if seed % 5 else "seldom") for seed in range(20)]
    drawn = request_shapes.drawn_requests(processor, many, 6, 0)
    assert Counter(request.benchmark for request in drawn) == {"often": 3, "seldom": 3}


def test_a_batch_repeats_the_prompt_without_padding(processor: object) -> None:
    request = request_shapes.drawn_requests(processor, [row(0)], 1, 0)[0]
    batch = request.batch(3)
    assert batch["input_ids"].shape == (3, len(request.encoded["input_ids"]))
    assert batch["attention_mask"].all()
    assert batch["image_grid_thw"].shape[0] == 3
    assert "labels" not in batch
