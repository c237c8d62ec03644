"""Parameters of the pruned checkpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from interlace.params.measuring import Answers, Measure
from interlace.params.section import Dtype, Section, merged


class Export(Section):
    """The pruned checkpoint and its check."""

    compensate: Literal["none", "lstsq"] = Field(
        "none",
        description="lstsq: fit the last weight of kept layers to make up for dropped ones, where"
        " held-out answers get likelier by it",
    )
    compensate_samples: int = Field(
        512,
        ge=4,
        description="calibration rows for that, samples; a quarter of them is held out",
    )
    max_shard_mb: int = Field(4096, ge=1, description="largest weight file, MiB")
    dtype: Literal["keep", "bfloat16", "float16", "float32"] = Field(
        "keep", description="what weights are stored as; keep: each as in the dense checkpoint"
    )
    parity_samples: int = Field(
        4,
        ge=0,
        description="calibration rows on which the written model must be the dense one without the"
        " layers, bit for bit, samples; 0: it is not checked",
    )
    sparsity_samples: int = Field(
        128, ge=1, description="wanda-2:4: calibration rows to measure inputs on, samples"
    )


class ExportParams(Section):
    """`export`: write the pruned checkpoint."""

    dtype: Dtype
    measure: Measure = Measure()
    export: Export = Export()

    @property
    def answer_options(self) -> Answers:
        """The options of reading calibration rows."""
        return merged(Answers, self.measure, dtype=self.dtype)
