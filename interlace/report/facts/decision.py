"""A decision in words, for the terminal, figures, the cards and the page."""

from __future__ import annotations

from collections.abc import Sequence

from interlace.plan.record import Group, Plan
from interlace.plan.removals import PaperRule
from interlace.report.facts.roles import stretches

# What a method's groups are taken for. Of the rest of the triplets and pairs: `S_3` and `S_2`.
SCORE_NAMES = {
    "interlace-tn": "S_1",
    "consecutive": "S_1",
    "interlace-pooled": "pooled",
    "math-aware": "z-score",
    "nonmath-aware": "z-score",
    "mixed": "z-score",
    "cka": "CKA",
    "shortgpt": "BI",
    "angular-block": "angle",
    "sleb": "step",
    "taylor": "importance",
}
TUNED_WORDS = {
    "spaced": "tuning evenly spaced layers",
    "anchors": "tuning the anchors",
    "all": "tuning all that stay",
    "none": "tuning none",
}
PAIRS_FIRST = frozenset({"interlace-tn"})  # methods whose own groups are pairs
LEAST = 2  # layers named as the least certain


def asked(plan: Plan) -> str:
    """The method and everything it was told: `mixed: 25% of 22 prunable layers, alpha 0.7`."""
    if plan.sparsity:
        return f"{plan.method}: no layer of {plan.n_layers}, whatever the ratio"
    layers = plan.base_layers or plan.n_layers
    kind = "layers" if plan.base == "all" else "prunable layers"
    parts = [f"{plan.method}: {percent(plan.ratio)} of {layers} {kind}"]
    parts += [f"{name} {value:g}" for name, value in plan.settings.items()]
    if plan.rounds > 1:
        parts.append(f"{plan.rounds} rounds")
    if plan.tuned != "planned":
        parts.append(TUNED_WORDS[plan.tuned])
    return ", ".join(parts)


def percent(ratio: float) -> str:
    """A share in percent, to three digits: 25%, 29.2%."""
    return f"{100 * ratio:.3g}%"


def outcome(plan: Plan) -> str:
    """What came of it: `24 layers, 18 kept, 6 tuned`."""
    kept = len(plan.keep) if plan.drop else "all"
    return f"{plan.n_layers} layers, {kept} kept, {len(plan.tune) or 'none'} tuned"


def notes(plan: Plan, rule: PaperRule) -> list[str]:
    """What else a reader must know: protection, how a budget was met, what fell short, how sure."""
    every = (
        sparsity(plan),
        protection(plan, rule),
        budget(plan),
        shortfall_note(plan),
        certainty(plan),
    )
    return [note for note in every if note]


def sparsity(plan: Plan) -> str:
    """What is zeroed instead of dropped; empty where nothing is."""
    if not plan.sparsity:
        return ""
    return "zero: 2 of every 4 weights of the decoder's linear layers"


def protection(plan: Plan, rule: PaperRule) -> str:
    """How many layers are protected, which and why; empty where none is."""
    if not plan.protected or plan.sparsity:
        return ""
    first = [layer for place, layer in enumerate(plan.protected) if place == layer]
    last = plan.protected[len(first) :]
    parts = []
    for layers, published, parameter in (
        (first, rule.protect_first, "select.protect_first"),
        (last, rule.protect_last, "select.protect_last"),
    ):
        why = "its paper's rule" if len(layers) == published else parameter
        if layers == first and len(layers) == plan.deepstack_layers:
            why = "image features are added after them"
        if layers:
            parts.append(f"{listed(layers)} ({why})")
    return f"{len(plan.protected)} protected: {' and '.join(parts)}"


def budget(plan: Plan) -> str:
    """How a budget became a number of layers; empty where the ratio was given."""
    return f"ratio = auto: {plan.decision.reason}" if plan.decision else ""


def shortfall_note(plan: Plan) -> str:
    """What happened when the method's own rule could not reach K; empty when it could."""
    short = plan.shortfall
    grouped = {group.kind for group in plan.groups} & {"triplet", "pair"}
    what = "pairs" if plan.method in PAIRS_FIRST else "triplets"
    if short.missing:
        free = plan.n_layers - len(plan.protected)
        ran_out = f"{what} ran out" if grouped else f"only {free} are not protected"
        return f"{short.missing} of {short.wanted} layers not dropped: {ran_out}"
    if short.pairs and plan.method not in PAIRS_FIRST:
        return f"triplets ran out: pairs drop {short.pairs} of {short.wanted} layers"
    return ""


def certainty(plan: Plan) -> str:
    """Say how many resamples drop the same layers; empty where that is not known."""
    sure = plan.stability
    if sure is None:
        return ""
    share = f"{percent(sure.same)} of {sure.draws}" if sure.same < 1 else f"all {sure.draws}"
    text = f"{share} resamples drop the same layers"
    often = {layer: sure.dropped.get(layer, 0.0) for layer in plan.drop}
    least = sorted((layer for layer in often if often[layer] < 1), key=lambda i: (often[i], i))
    named = ", ".join(f"{layer} ({percent(often[layer])})" for layer in least[:LEAST])
    return text + (f"; least certain: {named}" if named else "")


def listed(layers: Sequence[int], to: str = " to ") -> str:
    """Layers in order, neighbours together: `3 to 5, 9`; `none`."""
    parts = [
        f"{part[0]}{to}{part[-1]}" if len(part) > 2 else ", ".join(map(str, part))
        for part in stretches(layers)
    ]
    return ", ".join(parts) or "none"


def score_name(plan: Plan, group: Group) -> str:
    """What a group's score is: `S_3`, `BI`, ..."""
    own = f"S_{group.span}" if group.kind in ("triplet", "pair") else "score"
    return SCORE_NAMES.get(plan.method, own)


def number(value: float) -> str:
    """A score to four decimals; small ones to four digits, huge ones with an exponent."""
    if value.is_integer() and abs(value) < 1e4:
        return f"{value:.0f}"
    if abs(value) < 0.1:
        return f"{value:#.4g}"
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.3e}"
