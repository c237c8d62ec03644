"""Parameters of evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from interlace.params.section import Dtype, Section
from interlace.params.served import ServedModel


class Judge(ServedModel):
    """A model that judges answers; without an address there is none."""


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
    heldout_metric: Literal["exact-match", "next-token"] = Field(
        "exact-match",
        description="what scores its rows; exact-match: a generated answer; next-token: without"
        " generating, the share of the true answer's tokens that are the model's first choice, for"
        " long texts",
    )
    judged: tuple[str, ...] = Field(
        (), description="such files of open questions, whose answers the judge grades"
    )
    judge: Judge = Field(Judge(), description="who judges answers to open questions")
    limit: int | None = Field(None, ge=1, description="rows per benchmark, rows; none: all")
    batch_size: int = Field(16, ge=1, le=65_536, description="prompts generated together, prompts")
    max_new_tokens: int = Field(
        50,
        ge=1,
        description="longest answer, tokens (INTERLACE: 50, or 16384 with reasoning)",
    )
    max_pixels: int | None = Field(
        None, ge=1, description="cap on an image's size, pixels; none: the processor's own"
    )


def key(name: str) -> str:
    """Return a benchmark's name without case and punctuation (V*, MIA-Bench)."""
    letters = name.casefold().replace("*", "star")
    return "".join(letter for letter in letters if letter.isalnum())


class EvaluateParams(Section):
    """`evaluate`: score one model on the benchmarks."""

    dtype: Dtype
    evaluate: Evaluate = Evaluate()
