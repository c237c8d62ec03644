"""Reference runs: the dense model tuned by the same recipe, to hold healed models against.

INTERLACE reports against `dense-ft` (arXiv 2511.19676, table 5), the domain-aware paper against its
SFT of the dense model (arXiv 2603.20275), here `dense-sft`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interlace.outputs import write_json
from interlace.plan.record import Decision, Plan
from interlace.scores.table import Scores
from interlace.selection.select import layers_to_drop, select


def reference_plan(
    reference: str, ratio: float | str, decision: Decision | None, pinned: dict[str, Any]
) -> Plan | None:
    """Which layers of the dense model the reference run tunes; nothing is dropped.

    The plan says nothing that the run does not depend on, so that an equal one is not run again.

    Args:
        reference: none; dense-ft: the last K layers are tuned, K as many as `ratio` drops of all
            layers; dense-sft: all layers, whatever the ratio.
        ratio: share of the layers to drop, or auto.
        decision: what a budget came to, for `auto`.
        pinned: the dense model's source.

    Returns:
        None without a reference.
    """
    if reference == "none":
        return None
    layers: int = pinned["n_layers"]
    drops = decision.drops if decision else 0
    if reference == "dense-ft" and not isinstance(ratio, str):
        drops = layers_to_drop(ratio, layers)
    scores = Scores(layers, pinned["deepstack_layers"], {}, {})
    if reference == "dense-ft":
        return select(scores, method="dense-ft", drops=drops, protect_first=0)
    plan = select(scores, method="dense-ft", drops=0, protect_first=0, tuned="all")
    return plan.model_copy(update={"method": reference})


def write_reference(path: Path, plan: Plan | None) -> None:
    """Write a reference's plan, `null` where there is none."""
    write_json(path, plan.model_dump(mode="json") if plan else None)
