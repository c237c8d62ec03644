"""How models are scored and timed."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, PositiveInt

from interlace.benchmark_names import key
from interlace.params.section import Section


class Judge(Section):
    """A model that judges answers, behind an endpoint with OpenAI's chat completions."""

    url: str | None = Field(
        None, description="address of the endpoint, e.g. http://localhost:8000/v1; none: no judge"
    )
    model: str | None = Field(None, description="the model to ask there")
    key_variable: str | None = Field(
        None, description="environment variable that holds the endpoint's key; none: no key"
    )


class Evaluate(Section):
    """Benchmarks, run through lmms-eval."""

    benchmarks: tuple[str, ...] = Field((), description="published benchmarks by name, e.g. AI2D")
    data: str | None = Field(
        None,
        description="local folder that holds the benchmarks' data by name (AI2D.parquet, or a"
        " folder AI2D as on the hub); none: from the hub",
    )
    heldout: str | None = Field(
        None, description="Parquet file in FineVision's schema; each of its sources is a benchmark"
    )
    judged: tuple[str, ...] = Field(
        (), description="such files of open questions, whose answers the judge grades"
    )
    judge: Judge = Field(Judge(), description="who judges answers to open questions")
    limit: int | None = Field(None, ge=1, description="rows per benchmark, rows; none: all")
    batch_size: int = Field(16, ge=1, description="prompts generated together, prompts")
    max_new_tokens: int = Field(
        50,
        ge=1,
        description="longest answer, tokens (INTERLACE: 50, or 16384 with reasoning)",
    )
    max_pixels: int | None = Field(
        None, ge=1, description="cap on an image's size, pixels; none: the processor's own"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )


RequestShape = Literal[
    "AI2D",
    "ChartQA",
    "OCRBench",
    "TextVQA",
    "MMBench",
    "POPE",
    "RealWorldQA",
    "HRBench4K",
    "HRBench8K",
    "VStar",
    "MIABench",
    "ScienceQA",
]


def _shape(value: Any) -> Any:
    """A benchmark's name as `evaluate.benchmarks` takes it: V*, MIA-Bench."""
    known = {key(name): name for name in get_args(RequestShape)}
    return known.get(key(value), value) if isinstance(value, str) else value


class Ttft(Section):
    """Time to first token, and end to end."""

    shapes: tuple[Annotated[RequestShape, BeforeValidator(_shape)], ...] = Field(
        (),
        description="benchmarks whose typical request is timed, by name, e.g. AI2D; none: rows of"
        " the calibration set",
    )
    requests: int = Field(
        8, ge=1, description="calibration rows to send, spread over their sources, requests"
    )
    batch_sizes: tuple[PositiveInt, ...] = Field(
        (), description="batches of one prompt, repeated, to time beside single ones, prompts"
    )
    new_tokens: int = Field(
        8, ge=1, description="length of every answer, for decode and end to end, tokens"
    )
    repeats: int = Field(5, ge=1, description="timed dense and pruned pairs per request, pairs")
    warmup: int = Field(2, ge=0, description="untimed pairs per request shape, pairs")
    confidence: float = Field(0.95, gt=0, lt=1, description="level of the bootstrap interval")
    max_interval: float = Field(
        0.1,
        gt=0,
        description="widest interval of a speedup that is reported, share of the speedup",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )
