"""Model cards of small runs, made without a model."""

from __future__ import annotations

from typing import Any

from plans import make_plan
from report.report_cases import decided, full_scores, in_rounds, make_run, small_plan
from sources_json import pinned_model

from interlace.plan.record import Plan
from interlace.report.card.card import model_card
from interlace.report.facts.run import Which
from interlace.selection.select import select
from interlace.sources.pinned import PinnedData, PinnedFile, PinnedSources

BOTH: tuple[Which, ...] = ("pruned", "tuned")
NONE = "\u2013"


def card(which: Which = "tuned", plan: Plan | None = None, **changes: Any) -> str:
    return model_card(make_run(plan, **changes), which)


def local(model: str, data: str = "data/train.parquet") -> PinnedSources:
    config, weights, rows = (PinnedFile(size=1, sha256=two * 32) for two in ("00", "ab", "cd"))
    return PinnedSources(
        model=pinned_model(model, files={"config.json": config, "model.safetensors": weights}),
        data=PinnedData(id=data, files={"train.parquet": rows}),
    )


def manual(drop: list[int], tune: list[int]) -> Plan:
    return make_plan(drop, tune, 9).model_copy(update={"method": "manual"})


PLANS = {
    "interlace": small_plan,
    "a budget": decided,
    "rounds": in_rounds,
    "domain-aware": lambda: select(full_scores(24, 3), method="mixed", alpha=0.4),
    "manual, nothing tuned": lambda: manual([3], []),
    "dense-ft": lambda: select(full_scores(), method="dense-ft"),
}


LOCAL = local("data/demo/model")
