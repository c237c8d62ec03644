"""Hand-made results for the report's tests."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pyarrow as pa
from plans import make_plan
from rich.console import Console, RenderableType
from sources_json import pinned_model

from interlace.data.datasheet import Datasheet
from interlace.evaluation.scores.result import Evaluation, Score
from interlace.params.whole import Params
from interlace.plan.record import Decision, Group, Plan, Shortfall
from interlace.plan.removals import Removals
from interlace.report.facts.run import Run
from interlace.report.facts.speed import parse_speed
from interlace.report.facts.summary import Metrics, left_out, summarise
from interlace.scores.table import (
    ANGULAR,
    CKA,
    MATH,
    NATIVE,
    NONMATH,
    POOLED,
    SCHEMA,
    SEARCH,
    SLEB,
    TAYLOR,
    Scores,
)
from interlace.selection.removals import paper_rule
from interlace.selection.select import select
from interlace.sources.pinned import PinnedData, PinnedSources

ILLUSTRATED = (  # -log10(1 - S_1)
    *(0.5, 1.1, 1.3, 1.4, 1.75, 1.6, 2.1, 2.3, 1.9, 1.95, 2.5, 2.2),
    *(2.1, 1.8, 2.3, 2.45, 2.0, 1.85, 2.35, 2.05, 2.15, 1.9, 1.75, 1.2),
)

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
    "threads": 2,
    "on_gpu": 0,
}
UNSURE = TTFT | {
    "ttft_speedup": None,
    "ttft_speedup_refused": "its 95% interval, 1.02 to 1.43, is wider than 10% of it",
    "ttft_speedup_low": 1.02,
    "ttft_speedup_high": 1.43,
}


def evaluations() -> dict[str, Evaluation]:
    """POPE has no score for the tuned model; MIA-Bench has none at all."""
    return {
        model: Evaluation(
            model=f"models/{model}",
            scores={
                name: Score(score=score, standard_error=1.5, n=100, category="made up")
                for name, score in scores.items()
            },
            skipped={"MIA-Bench": "no judge is configured"},
            versions={},
            device="cpu",
            dtype="float32",
        )
        for model, scores in SCORES.items()
    }


def without_scores() -> dict[str, Evaluation]:
    return {
        model: result.model_copy(update={"scores": {}}) for model, result in evaluations().items()
    }


def illustration() -> Scores:
    """Made-up scores of a 24-layer decoder, in the shape that real ones have."""
    distance = 10 ** -np.array(ILLUSTRATED)
    values = {
        (NATIVE, first, span): 1 - 0.9 * float(distance[first : first + span].sum())
        for span in (1, 2, 3)
        for first in range(24 - span + 1)
    }
    return Scores(24, 3, values, {"model": "made-up"})


def score_table(scores: Scores, **changes: Any) -> pa.Table:
    """The scores as the table of `score`, with a column or two changed."""
    rows = [
        {"criterion": criterion, "first": first, "span": span, "value": value} | changes
        for (criterion, first, span), value in scores.values.items()
    ]
    layers = {name: str(getattr(scores, name)) for name in ("n_layers", "deepstack_layers")}
    return pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(scores.provenance | layers))


def change_scores(evaluation: Evaluation, *benchmarks: str, **changes: Any) -> None:
    """Change the scores of some benchmarks, or of all."""
    for name in benchmarks or tuple(evaluation.scores):
        evaluation.scores[name] = evaluation.scores[name].model_copy(update=changes)


def plan(method: str = "interlace", ratio: float = 0.25) -> Plan:
    return select(illustration(), method=method, ratio=ratio)


SOURCES = PinnedSources(
    model=pinned_model("Qwen/Qwen3-VL-8B-Instruct", files=None, revision="0c351dd"),
    data=PinnedData(id="HuggingFaceM4/FineVision", revision="c1a2b3d"),
)


def params(**sections: Any) -> Params:
    """The parameters of the run, but for some sections."""
    sources = {"model": {"id": SOURCES.model.id}, "data": {"id": SOURCES.data.id}}
    return Params.model_validate(sources | {"ratio": 0.25} | sections)


def make_run(plan: Plan | None = None, **changes: Any) -> Run:
    """A run of a plan, else of the small one; evaluations and times may differ too."""
    plan = plan or small_plan()
    results, ttft = changes.pop("evaluations", evaluations()), changes.pop("ttft", TTFT)
    fields: dict[str, Any] = {
        "removals": Removals(rule=paper_rule(plan.method), removals=()),
        "params": params(),
        "sources": SOURCES,
        "summary": summarise(results, ttft, plan, parameters_before=1000, parameters_after=800),
        "rows": {"train": 240000, "calibration": 24000},
        "left_out": left_out(results),
    }
    speed = parse_speed(ttft)
    return Run(plan=plan, evaluations=results, speed=speed, **fields | changes)


def summary_of(plan: Plan | None = None, **changes: Any) -> Metrics:
    return make_run(plan, **changes).summary


def full_scores(n_layers: int = 24, deepstack_layers: int = 0, without: str = "") -> Scores:
    """Made-up values of every criterion but one, as if each stage had measured."""
    draw = random.Random(0)
    values = {
        (criterion, first, span): 1 - 10 ** -draw.uniform(1, 3)
        for criterion in (NATIVE, MATH, NONMATH, ANGULAR, POOLED, CKA)
        for span in range(1, n_layers + 1 if criterion in (NATIVE, ANGULAR) else 2)
        for first in range(n_layers - span + 1)
    }
    order = draw.sample(range(1, n_layers - 1), n_layers * 2 // 5)
    inner = [i for i in order if i >= deepstack_layers]
    values |= {(SLEB, layer, 1): float(step) for step, layer in enumerate(inner)}
    for size in range(len(inner), 0, -1):
        values |= {(SEARCH, layer, 1): float(size) for layer in inner[:size]}
        values |= {(f"{SEARCH}/{size}", layer, 1): 1 + size / 10 for layer in inner[:size]}
    values |= {(TAYLOR, layer, 1): draw.uniform(1e4, 1e6) for layer in range(n_layers)}
    values = {key: value for key, value in values.items() if key[0] != without}
    return Scores(n_layers, deepstack_layers, values, {"model": "made-up"})


def small_plan() -> Plan:
    """Nine layers: 0 protected; triplet drops 2, tunes 1, anchors 3; pair drops 5, tunes 6."""
    triplet = Group(
        kind="triplet", layers=(1, 2, 3), score=0.98, layer_scores=(0.97, 0.99),
        drop=(2,), tune=(1,), anchor=3,
    )  # fmt: skip
    pair = Group(
        kind="pair", layers=(5, 6), score=0.95, layer_scores=(0.99, 0.97), drop=(5,), tune=(6,)
    )
    shortfall = Shortfall(policy="pairs", wanted=2, triplets=1, pairs=1, missing=0)
    changes = {"groups": [triplet, pair], "protected": [0], "shortfall": shortfall}
    return make_plan([2, 5], [1, 6], 9).model_copy(update=changes)


def in_rounds() -> Plan:
    """Twelve layers: round 1 drops the run 4 to 6, round 2 takes a triplet on both its sides."""
    run = Group(kind="run", layers=(4, 5, 6), score=0.98, drop=(4, 5, 6), tune=(9, 10, 11))
    triplet = Group(
        kind="triplet", layers=(3, 7, 8), score=0.95, layer_scores=(0.97, 0.99),
        drop=(7,), tune=(3,), anchor=8, round=2,
    )  # fmt: skip
    changes = {"ratio": 0.34, "base_layers": 12, "rounds": 2, "groups": [run, triplet]}
    return make_plan([4, 5, 6, 7], [3, 9, 10, 11], 12).model_copy(update=changes)


def decided() -> Plan:
    """A plan of a budget."""
    decision = Decision(
        budget="params", target=0.8, drops=4, values={}, how="exact", reason="the fewest layers"
    )
    return select(full_scores(), ratio="auto", decision=decision)


def size_row(samples: int, tau: float | None, same: float | None = 0.5) -> dict[str, Any]:
    """One size out of 200 calibration samples."""
    ends = {"": 0.0, "_low": -0.01, "_high": 0.004}
    taus = {
        f"tau_{span}{end}": None if tau is None else tau + shift
        for span in (1, 3)
        for end, shift in ends.items()
    }
    return {"samples": samples, "share": samples / 200, **taus, "same": same}


SIZE_ROWS = [size_row(2, 0.7, 0.1), size_row(20, 0.96, 0.72), size_row(100, 0.99, 1.0)]


def shown(renderable: RenderableType, width: int = 80) -> str:
    """Print to a terminal without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def shown_lines(renderable: RenderableType, width: int = 80) -> list[str]:
    return shown(renderable, width).splitlines()


TALLY = {"rows": 7, "text_only": 1, "images": 6, "turns": 9, "words": 99, "characters": 500}
DATASHEET = Datasheet(
    subsets={},
    left_out={"repeated": 1},
    odd={},
    rows=7,
    calibration=2,
    bytes_read=2,
    bytes_kept=1,
    text_only_share=1 / 7,
    by_set={},
    by_domain={},
    by_source={"a": TALLY},
)
