"""A decision in words, for the terminal, figures, the cards and the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from interlace.plan.record import Group, Plan
from interlace.report.facts.roles import stretches
from interlace.scores.sinks import SinkLayers

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
    "search": "loss",
    "taylor": "importance",
}
RANKINGS = ("cka", "math-aware", "mixed", "nonmath-aware", "shortgpt", "taylor")
TUNED_WORDS = {
    "spaced": "tuning evenly spaced layers",
    "anchors": "tuning the anchors",
    "all": "tuning all that stay",
    "none": "tuning none",
}
REASONS = {  # why layers are protected, in the order of the text
    "user": "set in select",
    "deepstack": "image features are added after them",
    "paper": "its paper's rule",
    "sink": "attention sink",
}
PAIRS_FIRST = frozenset({"interlace-tn"})  # methods whose own groups are pairs
LEAST = 2  # layers named as the least certain


def asked(plan: Plan) -> str:
    """Describe the method and its settings: `mixed: 25% of 22 prunable layers, alpha 0.7`."""
    if plan.sparsity:
        return f"{plan.method}: no layer of {plan.n_layers}, whatever the ratio"
    layers = plan.base_layers or plan.n_layers
    kind = "layers" if plan.base == "all" else "prunable layers"
    words = [f"{plan.method}: {percent(plan.ratio)} of {layers} {kind}"]
    words += [f"{name} {value:g}" for name, value in plan.settings.items()]
    if plan.rounds > 1:
        healed = f" with {plan.heal_steps:,} steps of healing between" if plan.heal_steps else ""
        words.append(f"{plan.rounds} rounds{healed}")
    if plan.candidates:
        words.append(f"best of {plan.candidates} plans after healing")
    if plan.tuned != "planned":
        words.append(TUNED_WORDS[plan.tuned])
    return ", ".join(words)


def percent(ratio: float) -> str:
    """Format a share in percent, to three digits: 25%, 29.2%."""
    return f"{100 * ratio:.3g}%"


def outcome(plan: Plan) -> str:
    """Summarise the decision: `24 layers, 18 kept, 6 tuned`."""
    n_kept = len(plan.keep) if plan.drop else "all"
    return f"{plan.n_layers} layers, {n_kept} kept, {len(plan.tune) or 'none'} tuned"


def notes(plan: Plan) -> list[str]:
    """List all else: sparsity, periods, protection, sinks, the budget, a shortfall, stability."""
    every = (
        sparsity(plan),
        whole_periods(plan),
        protection(plan),
        sinks(plan),
        budget(plan),
        shortfall_note(plan),
        certainty(plan),
    )
    return [note for note in every if note]


def sparsity(plan: Plan) -> str:
    """Name the weights that are zeroed instead of dropped; empty where none are."""
    if not plan.sparsity:
        return ""
    return "zero: 2 of every 4 weights of the decoder's linear layers"


def whole_periods(plan: Plan) -> str:
    """Say how K was rounded to whole periods; empty where any layers may go."""
    if not plan.period:
        return ""
    periods = len(plan.drop) // plan.period
    layers = math.floor(plan.ratio * plan.base_layers + 1e-9)
    periods_dropped = (
        f"{periods} whole period{'s' * (periods != 1)} of {plan.period} layers dropped"
    )
    return f"{periods_dropped}: {len(plan.drop)} of the {layers} layers that the ratio is"


def protection(plan: Plan) -> str:
    """Say which layers are protected and why; empty where none are."""
    if not plan.protected or plan.sparsity:
        return ""
    reasons = [
        f"{listed(plan.protection[reason])} ({words})"
        for reason, words in REASONS.items()
        if reason in plan.protection
    ]
    return f"{len(plan.protected)} protected: {' and '.join(reasons) or listed(plan.protected)}"


def sinks(plan: Plan) -> str:
    """Name the layers that make or end a massive activation; empty where none do.

    Says so where they were not measured, and which of them are dropped.
    """
    if plan.sparsity or not plan.groups:
        return ""
    if plan.sinks is None:
        return "attention sinks: not measured; run `collect` and `score` again"
    if not plan.sinks.layers:
        return ""
    dropped = [layer for layer in plan.sinks.layers if layer in plan.drop]
    verb = "is" if len(dropped) == 1 else "are"
    warning = f"; {layers_text(dropped)} {verb} dropped all the same" if dropped else ""
    return f"{sink_words(plan.sinks)}{warning}"


def sink_words(layers: SinkLayers) -> str:
    """Name the layers that make or end a massive activation."""
    sides = [
        f"{verb} by {layers_text(side)}"
        for side, verb in ((layers.start, "made"), (layers.end, "ended"))
        if side
    ]
    return f"attention sink (a token of huge norm): {', '.join(sides)}"


def budget(plan: Plan) -> str:
    """Say how a budget became a number of layers; empty where the user gave the ratio."""
    return f"ratio = auto: {plan.decision.reason}" if plan.decision else ""


def shortfall_note(plan: Plan) -> str:
    """Explain that the method's own rule could not reach K; empty where it could."""
    short = plan.shortfall
    grouped = {group.kind for group in plan.groups} & {"triplet", "pair"}
    groups = "pairs" if plan.method in PAIRS_FIRST else "triplets"
    if short.missing:
        free = plan.n_layers - len(plan.protected)
        ran_out = f"{groups} ran out" if grouped else f"only {free} are not protected"
        return f"{short.missing} of {short.wanted} layers not dropped: {ran_out}"
    if short.pairs and plan.method not in PAIRS_FIRST:
        return f"triplets ran out: pairs drop {short.pairs} of {short.wanted} layers"
    return ""


def certainty(plan: Plan) -> str:
    """Say how many resamples drop the same layers; empty where that is not known."""
    stability = plan.stability
    if stability is None:
        return ""
    share = (
        f"{percent(stability.same)} of {stability.draws}"
        if stability.same < 1
        else f"all {stability.draws}"
    )
    text = f"{share} resamples drop the same layers"
    frequency = {layer: stability.dropped.get(layer, 0.0) for layer in plan.drop}
    least = sorted(
        (layer for layer in frequency if frequency[layer] < 1), key=lambda i: (frequency[i], i)
    )
    layers = ", ".join(f"{layer} ({percent(frequency[layer])})" for layer in least[:LEAST])
    return text + (f"; least certain: {layers}" if layers else "")


def listed(layers: Sequence[int], to: str = " to ") -> str:
    """List layers in order, neighbours together: `3 to 5, 9`; `none`."""
    ranges = [
        f"{run[0]}{to}{run[-1]}" if len(run) > 2 else ", ".join(map(str, run))
        for run in stretches(layers)
    ]
    return ", ".join(ranges) or "none"


def layers_text(layers: Sequence[int]) -> str:
    """List layers after the word: `layer 11`, `layers 28, 29`."""
    return f"layer{'s' * (len(layers) != 1)} {listed(layers)}"


def score_name(plan: Plan, group: Group) -> str:
    """Name a group's score: `S_3`, `BI`, ..."""
    spans = plan.period or group.kind in ("triplet", "pair")
    name = SCORE_NAMES.get(plan.method, f"S_{group.span}" if spans else "score")
    return f"sum of {name}" if plan.period and plan.method in RANKINGS else name


def number(value: float) -> str:
    """Format a score to four decimals; small ones to four digits, huge ones with an exponent."""
    if value.is_integer() and abs(value) < 1e4:
        return f"{value:.0f}"
    if abs(value) < 0.1:
        return f"{value:#.4g}"
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.3e}"
