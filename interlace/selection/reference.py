"""Reference runs: the dense model tuned by the same recipe, to compare healed models with.

INTERLACE compares with `dense-ft` (arXiv 2511.19676, table 5), the domain-aware paper with its
SFT of the dense model (arXiv 2603.20275), here `dense-sft`.
"""

from __future__ import annotations

from pathlib import Path

from interlace.methods.baselines import DENSE_FT
from interlace.params.choosing import Auto, Select
from interlace.plan.record import Decision, Plan
from interlace.scores.table import Scores
from interlace.selection.by_rule import layers_to_drop, plan_by_rule
from interlace.sources.pinned import PinnedModel
from interlace.system.outputs import write_json


def reference_plan(
    reference: str, ratio: float | Auto, decision: Decision | None, pinned: PinnedModel
) -> Plan | None:
    """Choose the layers of the dense model that the reference run tunes; nothing is dropped.

    The plan holds only what the run depends on, so that an equal plan is not run again.

    Args:
        reference: none; dense-ft: the last K layers are tuned, K as many as `ratio` drops of all
            layers; dense-sft: all layers, whatever the ratio.
        ratio: share of the layers to drop, or auto.
        decision: of a budget on K, for `auto`.
        pinned: the dense model's source.

    Returns:
        `None` without a reference.
    """
    if reference == "none":
        return None
    n_layers = pinned.n_layers
    scores = Scores(n_layers, pinned.deepstack_layers, {}, {})
    if reference == "dense-sft":
        plan = plan_by_rule(scores, "dense-ft", DENSE_FT, 0, Select(protect_first=0, tuned="all"))
        return plan.model_copy(update={"method": reference})
    drops = decision.drops if decision else 0
    if ratio != "auto":
        drops = layers_to_drop(ratio, n_layers)
    return plan_by_rule(scores, "dense-ft", DENSE_FT, drops, Select(protect_first=0))


def write_reference(path: Path, plan: Plan | None) -> None:
    """Write the plan of a reference run; `null` without one."""
    write_json(path, plan.model_dump(mode="json") if plan else None)
