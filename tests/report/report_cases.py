"""Hand-made results for the report's tests."""

from __future__ import annotations

from interlace.evaluation.result import Evaluation
from interlace.plan import Plan, Shortfall, select
from interlace.report.drawings import illustration

SCORES = {
    "dense": {"AI2D": 80.0, "ChartQA": 50.0, "POPE": 90.0},
    "pruned": {"AI2D": 40.0, "ChartQA": 20.0, "POPE": 81.0},
    "tuned": {"AI2D": 72.0, "ChartQA": 50.0},
}
TTFT = {
    "ttft_speedup": 1.25,
    "ttft_speedup_low": 1.21,
    "ttft_speedup_high": 1.29,
    "ttft_ideal": 1.28,
    "ttft_dense_ms": 34.0,
    "ttft_tuned_ms": 27.2,
    "prefill_speedup": 1.31,
    "prefill_ideal": 1.333,
    "pairs": 40,
}


def evaluations() -> dict[str, Evaluation]:
    """POPE has no score for the tuned model; MIA-Bench has none at all."""
    return {
        model: {
            "model": f"models/{model}",
            "scores": {
                name: {"score": score, "standard_error": 1.5, "n": 100, "category": "made up"}
                for name, score in scores.items()
            },
            "skipped": {"MIA-Bench": "no judge is configured"},
            "versions": {},
            "device": "cpu",
            "dtype": "float32",
        }
        for model, scores in SCORES.items()
    }


def plan(method: str = "interlace", ratio: float = 0.25) -> Plan:
    return select(illustration(), method=method, ratio=ratio)


def small_plan() -> Plan:
    """Nine layers: 0 protected; triplet drops 2, tunes 1, anchors 3; pair drops 5, tunes 6."""
    return Plan.model_validate(
        {
            "method": "interlace",
            "ratio": 0.25,
            "n_layers": 9,
            "drop": [2, 5],
            "tune": [1, 6],
            "freeze": [0, 3, 4, 7, 8],
            "groups": [
                {"kind": "triplet", "first": 1, "span": 3, "score": 0.98,
                 "layer_scores": [0.97, 0.99], "drop": [2], "tune": [1], "anchor": 3},
                {"kind": "pair", "first": 5, "span": 2, "score": 0.95,
                 "layer_scores": [0.99, 0.97], "drop": [5], "tune": [6]},
            ],
            "protected": [0],
            "shortfall": Shortfall(policy="pairs", wanted=2, triplets=1, pairs=1, missing=0),
            "sources": {},
        }
    )  # fmt: skip
