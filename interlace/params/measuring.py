"""Parameters of measuring the dense model: hidden states, and the loss on answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from interlace.params.section import Attention, Dtype, Section, Workers, merged

Mode = Literal["residual", "reference"]
SCREENED = 4  # of so many rows, search screens sets on one


class Measure(Section):
    """The passes of rows through the dense model, in all stages that measure it."""

    batch_tokens: int = Field(8192, ge=1, description="padded tokens per batch, tokens")
    max_length: int = Field(
        8192,
        ge=1,
        description="longest row, tokens; `collect` skips longer ones, all other stages cut them at"
        " a turn",
    )
    max_pixels: int | None = Field(
        None, ge=1, description="cap on an image's size, pixels; none: the processor's own"
    )
    workers: Workers = None


class Spans(Section):
    """One pass over the calibration set, scoring spans of layers."""

    mode: Mode = Field(
        "residual",
        description="residual: true inputs and outputs of every layer; reference: as published,"
        " inputs of layers alone, so the last layer has no score",
    )
    max_span: int | None = Field(
        None, ge=3, description="longest span to score, layers; none: every span"
    )
    max_bad: int = Field(
        10,
        ge=0,
        description="samples that may be skipped because they cannot be read, samples; one more"
        " stops the run",
    )
    pooled: Literal["all", "probes", "none"] = Field(
        "probes",
        description="samples to keep mean-pooled states of: 4 x layers x width bytes each",
    )
    device_map: Literal["none", "auto"] = Field(
        "none",
        description="none: the whole model on each process's device; auto: spread over all GPUs,"
        " for a model that one cannot hold (one process only; other stages use one GPU)",
    )
    attn_implementation: Attention = "auto"


class Collect(Spans, Measure):
    """The options of `measurements.collect`."""

    dtype: Dtype

    def opening(self) -> dict[str, str]:
        """Return the arguments of `model.open.open_model`."""
        return self.model_dump(include={"dtype", "device_map", "attn_implementation"})


class Answers(Measure):
    """The options of whatever reads calibration rows with answers."""

    dtype: Dtype


class LossOptions(Section):
    """The loss on answers as layers go or weights move, for sleb, search and taylor."""

    max_ratio: float = Field(
        0.4,
        gt=0,
        lt=1,
        description="share of the layers that sleb and search remove; serves smaller ratios",
    )
    samples: int = Field(128, ge=1, description="calibration rows to measure on, samples")
    passes: int = Field(
        120,
        ge=1,
        description="budget of search: forward passes over these rows, counted in layers that run",
    )


class LossCriterion(Section):
    """The criterion on answers that the method needs; `pin` writes it, a user does not set it."""

    criterion: Literal["sleb", "search", "taylor"]
    protected: tuple[int, ...] = Field((), description="layers that are not removed, 0-based")


class Sensitivity(Answers, LossOptions):
    """The options of `measurements.sensitivity`, and of `budget` for a least retention."""


class CollectParams(Section):
    """`collect`: measure how layers change the hidden states."""

    dtype: Dtype
    measure: Measure = Measure()
    collect: Spans = Spans()

    @property
    def collect_options(self) -> Collect:
        """All of them together."""
        return merged(Collect, self.measure, self.collect, dtype=self.dtype)


class SensitivityParams(Section):
    """`sensitivity`: measure what sleb, search or taylor needs; nothing for other methods."""

    dtype: Dtype
    measure: Measure = Measure()
    sensitivity: LossOptions = LossOptions()

    @property
    def sensitivity_options(self) -> Sensitivity:
        """All of them together."""
        return merged(Sensitivity, self.measure, self.sensitivity, dtype=self.dtype)
