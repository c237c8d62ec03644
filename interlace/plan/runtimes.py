"""Runtimes that take a layer's kind from its number, and so run some pruned models wrongly.

Read in llama.cpp (as llama-cpp-python 0.3.36 has it), mlx-vlm and mlx-lm of August 2026: a layer is
of the last kind of a period by its number, whatever config.json lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from interlace.model.kinds import LayerKinds
from interlace.plan.record import Plan
from interlace.printable import say


@dataclass(frozen=True)
class FixedPeriod:
    """A runtime's rule for the kinds of layers.

    Attributes:
        runtime: its name.
        period: layers; the last of each period is of another kind than those before it.
        field: the field of config.json that lists the kinds, and is not read.
        last: its entry for the last layer of a period.
        gguf: the architecture's name, where an array in the GGUF file replaces the period.
    """

    runtime: str
    period: int
    field: str = "layer_types"
    last: str | int = "full_attention"
    gguf: str | None = None


FIXED_PERIODS = {  # by decoder
    "cohere2": (FixedPeriod("llama.cpp", 4, gguf="cohere2"), FixedPeriod("MLX", 4)),
    "gemma2": (FixedPeriod("llama.cpp", 2, gguf="gemma2"),),
    "gemma3_text": (FixedPeriod("llama.cpp", 6, gguf="gemma3"), FixedPeriod("MLX", 6)),
    "gpt_oss": (FixedPeriod("llama.cpp", 2, gguf="gpt-oss"),),
    "qwen3_5_moe_text": (FixedPeriod("MLX", 4),),
    "qwen3_5_text": (FixedPeriod("MLX", 4),),
    "smollm3": (FixedPeriod("llama.cpp", 4, "no_rope_layers", 0),),
}
KNOWN_BY_DEPTH = {  # decoder and its layers -> what llama.cpp does with these many alone
    ("exaone4", 64): "has sliding windows",
    ("gemma2", 46): "scales attention as the 27B needs it",
    ("gemma3_text", 62): "scales attention as the 27B needs it",
}


def misreadings(plan: Plan) -> list[str]:
    """Name the runtimes that would run the pruned model wrongly, why, and the way out."""
    kinds = plan.layer_kinds
    if kinds is None or not plan.drop:
        return []
    depth = KNOWN_BY_DEPTH.get((kinds.decoder, plan.n_layers))
    by_depth = (
        f"llama.cpp would run this model wrongly: with {plan.n_layers} layers of {kinds.decoder}"
        f" alone it {depth}, and the pruned model has {len(plan.keep)}; use another runtime"
    )
    return [*_wrong_kinds(kinds, plan.keep), *([by_depth] if depth else [])]


def say_misreadings(plan: Plan, stage: str) -> None:
    """Print them, one line each."""
    for reason in misreadings(plan):
        say(f"{stage}: {reason}")


def _wrong_kinds(kinds: LayerKinds, keep: Sequence[int]) -> Iterator[str]:
    """Name the first kept layer of another kind than each runtime takes it for."""
    for rule in FIXED_PERIODS.get(kinds.decoder, ()):
        entries = kinds.fields.get(rule.field)
        if entries is None:
            continue
        for position, layer in enumerate(keep):
            is_last = (position + 1) % rule.period == 0
            if (entries[layer] == rule.last) != is_last:
                other = next((entry for entry in entries if entry != rule.last), "another kind")
                gguf = ", or write the kinds into its GGUF file: interlace gguf-pattern"
                yield (
                    f"{rule.runtime} would run this model wrongly: it takes {rule.field} of"
                    f" {kinds.decoder} by periods of {rule.period} layers, so layer {position} of"
                    f" the pruned model as {rule.last if is_last else other}, and it is"
                    f" {entries[layer]}; set select.period to keep, use another"
                    f" runtime{gguf if rule.gguf else ''}"
                )
                break
