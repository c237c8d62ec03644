"""The learning rate of each update."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CosineSchedule:
    """Linear warm-up to a peak, then half a cosine down to 0.

    The published recipe warms up from 0, as transformers does: the first update moves no weight.
    That would waste one of few updates in a short run, so a warm-up may also skip the 0.

    Attributes:
        peak: highest learning rate, 1/step.
        steps: updates of the whole run.
        warmup_ratio: share of the steps to warm up over.
        skip_zero: start the warm-up at `peak / (warm-up steps + 1)` instead of 0.
    """

    peak: float
    steps: int
    warmup_ratio: float
    skip_zero: bool = False

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of the update that follows `step` others."""
        warmup = math.ceil(self.warmup_ratio * self.steps)
        if step < warmup:
            skipped = int(self.skip_zero)
            return self.peak * (step + skipped) / (warmup + skipped)
        progress = (step - warmup) / max(1, self.steps - warmup)
        return self.peak * 0.5 * (1 + math.cos(math.pi * progress))
