"""How the dense model is measured: hidden states, and the loss on answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from interlace.params.choosing import Method, Protection
from interlace.params.section import Section


class Collect(Section):
    """One pass over the calibration set."""

    mode: Literal["residual", "reference"] = Field(
        "residual",
        description="residual: true inputs and outputs of every layer; reference: as published, "
        "from output_hidden_states, last layer unscored",
    )
    batch_tokens: int = Field(8192, ge=1, description="padded tokens per batch, tokens")
    max_span: int | None = Field(
        None, ge=3, description="longest span to score, layers; none: every span"
    )
    max_length: int = Field(
        8192, ge=1, description="longest prompt, tokens; samples with longer ones are left out"
    )
    max_bad: int = Field(
        10,
        ge=0,
        description="samples that may be left out because they cannot be read, samples; one more"
        " stops the run",
    )
    max_pixels: int | None = Field(
        None, ge=1, description="cap on an image's size, pixels; none: the processor's own"
    )
    pooled: Literal["all", "probes", "none"] = Field(
        "probes",
        description="samples to keep mean-pooled states of: 4 x layers x width bytes each",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )
    device_map: Literal["none", "auto"] = Field(
        "none",
        description="none: the whole model on each process's device; auto: spread over all GPUs,"
        " for a model that one cannot hold (one process only; other stages use one GPU)",
    )
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        "auto",
        description="attention of transformers; auto: flash_attention_2 on a GPU where flash-attn"
        " is installed and the dtype has 16 bits, else the model's own choice, sdpa if it has it",
    )

    def opening(self) -> dict[str, str]:
        """How to open the model, as `sources.open_model` takes it."""
        return self.model_dump(include={"dtype", "device_map", "attn_implementation"})


class Answers(Section):
    """How calibration rows with answers are read, and in which precision they are measured."""

    batch_tokens: int = Field(8192, ge=1, description="padded tokens per batch, tokens")
    max_length: int = Field(8192, ge=1, description="longer rows are cut at a turn, tokens")
    max_pixels: int | None = Field(
        None, ge=1, description="cap on an image's size, pixels; none: the processor's own"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )


class Sensitivity(Answers):
    """What sleb and taylor need: the loss on answers, as layers go or weights move."""

    max_ratio: float = Field(
        0.4, gt=0, lt=1, description="share of the layers that sleb removes; serves smaller ratios"
    )
    samples: int = Field(128, ge=1, description="calibration rows to measure on, samples")


class CollectParams(Section):
    """`collect`: measure how layers change the hidden states."""

    collect: Collect = Collect()


class SensitivityParams(Section):
    """`sensitivity`: measure what sleb or taylor needs; nothing for other methods."""

    method: Method
    select: Protection = Protection()
    sensitivity: Sensitivity = Sensitivity()
