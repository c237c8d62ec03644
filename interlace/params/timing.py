"""Parameters of time to first token."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from interlace.params.evaluating import key
from interlace.params.section import Attention, Dtype, Section, Seed
from interlace.params.served import ServedModel, Vllm

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
    """Return a benchmark's name as `evaluate.benchmarks` takes it: V*, MIA-Bench."""
    shapes_by_key = {key(name): name for name in get_args(RequestShape)}
    return shapes_by_key.get(key(value), value) if isinstance(value, str) else value


class ServedPair(Section):
    """Servers of the dense and of the tuned model, started by the user on machines that are alike.

    A model without a name is asked for by its folder's absolute path.
    """

    dense: ServedModel = ServedModel()
    tuned: ServedModel = ServedModel()


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
    batch_sizes: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field(
        (), description="batches of one prompt, repeated, to time beside single ones, prompts"
    )
    new_tokens: int = Field(
        8, ge=1, description="length of every answer, for decode and end to end, tokens"
    )
    repeats: int = Field(10, ge=1, description="timed dense and pruned pairs per request, pairs")
    warmup: int = Field(2, ge=0, description="untimed pairs per request shape, pairs")
    attn_implementation: Attention = "auto"
    confidence: float = Field(0.95, gt=0, lt=1, description="level of the bootstrap interval")
    max_interval: float = Field(
        0.1,
        gt=0,
        description="widest interval of a speedup that is reported, share of the speedup",
    )
    engine: Literal["transformers", "endpoint", "vllm"] = Field(
        "transformers",
        description="what is timed; transformers: both models, opened here; endpoint: also servers"
        " at endpoint.dense and endpoint.tuned; vllm: also servers that vllm.command starts, of"
        " both models at the same time",
    )
    endpoint: ServedPair = ServedPair()
    vllm: Vllm = Vllm()
    concurrency: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (1, 16, 64), min_length=1, description="requests to a server at the same time, requests"
    )


class TtftParams(Section):
    """`ttft`: time the dense and the tuned model side by side."""

    seed: Seed
    dtype: Dtype
    ttft: Ttft = Ttft()
