"""FLOPs of a request, and the speedup they promise.

One multiplication and one addition are two FLOPs. Torch's counter counts matrix products,
convolutions and attention over all pairs of tokens, causal or not; the rest is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

NAMES = ("dense", "tuned")


@dataclass(frozen=True)
class Work:
    """FLOPs of one request in one model.

    Attributes:
        total: up to the first token: vision tower, decoder, head.
        prefill: of the decoder's layers within `total`.
        decode: of one further token; 0 if the request ends at the first.
    """

    total: int
    prefill: int
    decode: int = 0


def ideals(works: Sequence[tuple[Work, Work]]) -> dict[str, float | int]:
    """Compute the speedup if time were FLOPs: dense FLOPs over pruned ones.

    Only the dropped layers make a difference: the vision tower and the head count in both models
    for `ttft_ideal`, the head in both for `decode_ideal`. With a share s of the dense model's FLOPs
    in its L layers, dropping K makes the ideal 1 / (1 - s K / L) (Amdahl's law); `prefill_ideal` is
    the decoder alone, s = 1, so L / (L - K). The ideal is no upper bound: layers may take more of
    the time than of the FLOPs.

    Args:
        works: per request, of the dense and the pruned model.

    Returns:
        FLOPs of the median request (`flops_dense`, `flops_tuned`), and medians of the requests'
        ratios; a phase that did not run is missing.
    """
    metrics: dict[str, float | int] = {
        f"flops_{name}": int(median(work[model].total for work in works))
        for model, name in enumerate(NAMES)
    }
    for phase, field in (("ttft", "total"), ("prefill", "prefill"), ("decode", "decode")):
        flops = [(getattr(dense, field), getattr(tuned, field)) for dense, tuned in works]
        if all(tuned for _, tuned in flops):
            metrics[f"{phase}_ideal"] = float(median(dense / tuned for dense, tuned in flops))
    return metrics
