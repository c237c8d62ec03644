"""Score a checkpoint on benchmarks, and say how much of a reference's scores it retains.

Importing this package is cheap: torch and lmms-eval are imported when `evaluate` runs.
"""

from interlace.evaluation.pinned import pin_evaluation
from interlace.evaluation.result import Evaluation, Score
from interlace.evaluation.retention import (
    RelativePerformance,
    category_scores,
    common_benchmarks,
    overall_score,
    relative_performance,
    spoken,
)
from interlace.evaluation.runner import evaluate, validate

__all__ = [
    "Evaluation",
    "RelativePerformance",
    "Score",
    "category_scores",
    "common_benchmarks",
    "evaluate",
    "overall_score",
    "pin_evaluation",
    "relative_performance",
    "spoken",
    "validate",
]
