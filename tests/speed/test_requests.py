from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from models import row, rows
from pydantic import ValidationError

from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS, find_benchmark
from interlace.model.open import open_processor
from interlace.params.timing import RequestShape, Ttft
from interlace.speed.requests import SHAPES, Shape, drawn_requests, request_of, typical_requests


def test_every_shape_is_of_a_benchmark_and_can_be_set() -> None:
    assert set(SHAPES) == set(get_args(RequestShape)) <= set(BENCHMARKS)


def test_shapes_go_by_the_names_that_evaluation_takes() -> None:
    spellings = ["V*", "MIA-Bench", "pope", "HR-Bench 4K"]
    names = tuple(find_benchmark(spelling).name for spelling in spellings)
    assert Ttft(shapes=spellings).shapes == names  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="'AI2D', 'ChartQA'"):
        Ttft(shapes=["POP"])  # type: ignore[list-item,arg-type]


def test_a_typical_request_has_the_shape_s_image_and_text(dense_dir: Path) -> None:
    processor = open_processor(dense_dir, max_pixels=10**6)  # the tiny model's own: fewer
    short, long = (request_of(processor, "a", Shape(64, 32, tokens)) for tokens in (10, 40))
    assert long.tokens - short.tokens == 30
    small, large = typical_requests(processor, ["ScienceQA", "POPE"])
    assert (small.benchmark, large.benchmark) == ("ScienceQA", "POPE")
    patches = [len(request.encoded["pixel_values"]) for request in (short, long, small, large)]
    assert patches[0] == patches[1] < patches[2] < patches[3]


def test_an_unknown_benchmark_is_refused(processor: Any) -> None:
    with pytest.raises(InputError, match=r"ttft\.shapes: 'POP'.*AI2D"):
        typical_requests(processor, ["POP"])


def test_rows_are_drawn_by_the_seed(processor: Any) -> None:
    draws = [drawn_requests(processor, rows(30), 4, seed) for seed in (0, 0, 1)]
    zero, again, one = ([request.tokens for request in requests] for requests in draws)
    assert zero == again != one
    assert len(zero) == 4


def test_rows_are_drawn_evenly_from_their_sources(processor: Any) -> None:
    uneven = [row(seed, source="often" if seed % 5 else "seldom") for seed in range(20)]
    requests = drawn_requests(processor, uneven, 6, 0)
    assert Counter(request.benchmark for request in requests) == {"often": 3, "seldom": 3}
