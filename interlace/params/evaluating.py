"""Parameters of evaluation."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from interlace.params.section import Attention, Dtype, Section, Workers
from interlace.params.served import ServedModel, Vllm

LONGEST = {"direct": 50, "reasoning": 16_384}  # tokens of an answer, unless a user sets another


def _tokens(value: Any) -> int | str:
    """One complaint for whatever is wrong with the length of answers."""
    if value == "auto":
        return "auto"
    number = isinstance(value, int | float) and math.isfinite(value)
    if not number or value < 1 or value != int(value):
        raise ValueError("must be a whole number of 1 or more, or auto")
    return int(value)


class Judge(ServedModel):
    """A model that judges answers; without an address there is none."""


class ServedNames(Section):
    """The name of each model on its server; none: its folder's absolute path, or its id on the hub.

    That is the name that `transformers serve` and `vllm serve` give a checkpoint.
    """

    dense: str | None = Field(None, description="the dense model's name on the server")
    pruned: str | None = Field(None, description="the pruned model's")
    tuned: str | None = Field(None, description="the tuned model's")
    reference: str | None = Field(None, description="the tuned dense model's")


class ServedModels(Section):
    """Servers that speak OpenAI's chat completions, started by the user."""

    urls: tuple[str, ...] = Field(
        (),
        description="their addresses, e.g. http://localhost:8000/v1; all serve the same models, and"
        " requests are spread over them",
    )
    models: ServedNames = ServedNames()
    key_variable: str | None = Field(
        None, description="environment variable that holds the servers' key; none: no key"
    )


class Evaluate(Section):
    """Benchmarks, run through lmms-eval."""

    benchmarks: tuple[str, ...] = Field(
        (), description="published benchmarks by name, e.g. AI2D; docs/evaluation.md lists them"
    )
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
    answers: Literal["direct", "reasoning"] = Field(
        "direct",
        description="how benchmarks and judged files are answered; direct: by lmms-eval's prompts,"
        " which ask for the answer alone, greedily; reasoning: as published, by VLMEvalKit's"
        " prompts, sampled",
    )
    seed: int = Field(0, ge=0, description="seed of sampled answers (answers: reasoning)")
    limit: int | None = Field(None, ge=1, description="rows per benchmark, rows; none: all")
    batch_size: int = Field(16, ge=1, le=65_536, description="prompts generated together, prompts")
    max_new_tokens: Annotated[int | Literal["auto"], PlainValidator(_tokens)] = Field(
        "auto",
        description="longest answer, tokens; a longer one is cut; auto: 50, or 16384 where answers"
        ' is reasoning; INTERLACE\'s "CoT off" is reasoning cut at 50, its "CoT on" at 16384',
    )
    max_pixels: int | None = Field(
        None, ge=1, description="cap on an image's size, pixels; none: the processor's own"
    )
    attn_implementation: Attention = "auto"
    workers: Workers = None
    engine: Literal["transformers", "endpoint", "vllm"] = Field(
        "transformers",
        description="what answers; transformers: the model is opened here; endpoint: servers at"
        " endpoint.urls; vllm: a server that vllm.command starts",
    )
    endpoint: ServedModels = ServedModels()
    vllm: Vllm = Vllm()
    concurrency: int = Field(
        32, ge=1, le=4096, description="requests to each server at the same time, requests"
    )
    answer_seconds: float = Field(
        600, gt=0, description="longest wait for one reply of a server; it is awaited twice"
    )
    max_failed: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of a server's answers that may fail for good and count nowhere; more"
        " stop the evaluation",
    )

    @property
    def opens_model(self) -> bool:
        """True if the model is opened here, False if servers answer."""
        return self.engine == "transformers"

    @property
    def determining(self) -> Evaluate:
        """The parameters that answers depend on; the others may change when a run has stopped."""
        aside = {"concurrency", "answer_seconds", "max_failed"}
        if self.opens_model:
            aside |= {"endpoint", "vllm"}
        else:
            aside |= {
                "attn_implementation",
                "batch_size",
                "vllm" if self.engine == "endpoint" else "endpoint",
            }
        changes: dict[str, Any] = {
            name: type(self).model_fields[name].default for name in sorted(aside)
        }
        if self.engine == "endpoint":
            changes["endpoint"] = ServedModels(models=self.endpoint.models)
        if self.engine == "vllm":
            changes["vllm"] = Vllm(command=self.vllm.command)
        return self.model_copy(update=changes)

    @property
    def longest(self) -> int:
        """Longest answer to benchmarks and judged files, tokens."""
        if self.max_new_tokens == "auto":
            return LONGEST[self.answers]
        return self.max_new_tokens

    @property
    def longest_heldout(self) -> int:
        """Longest answer to held-out rows, which are answered directly, tokens."""
        return LONGEST["direct"] if self.max_new_tokens == "auto" else self.max_new_tokens


def key(name: str) -> str:
    """Return a benchmark's name without case and punctuation (V*, MIA-Bench)."""
    letters = name.casefold().replace("*", "star")
    return "".join(letter for letter in letters if letter.isalnum())


class EvaluateParams(Section):
    """`evaluate`: score one model on the benchmarks."""

    dtype: Dtype
    evaluate: Evaluate = Evaluate()
