"""How much a request computes, by torch's counter and by formula, and the speedup it promises.

One multiplication and one addition are two FLOPs; matrix products, convolutions and attention
count, the rest is small beside them. Attention counts all pairs of tokens, causal or not, as
torch's counter has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

NAMES = ("dense", "tuned")


@dataclass(frozen=True)
class Work:
    """FLOPs of one request in one model.

    Attributes:
        total: up to the first token: vision tower, decoder, head.
        prefill: of the decoder's layers within `total`.
        decode: of one further token; 0 where none was asked for.
    """

    total: int
    prefill: int
    decode: int = 0


def ideals(works: Sequence[tuple[Work, Work]]) -> dict[str, float | int]:
    """What dropping layers would give if time were FLOPs: dense FLOPs over pruned ones.

    Everything but the dropped layers stays in both models and counts in both: the vision tower and
    the head in `ttft_ideal`, the head in `decode_ideal`. With a share s of the dense model's FLOPs
    in its L layers, dropping K makes it 1 / (1 - s K / L) (Amdahl's law); `prefill_ideal` is the
    decoder alone, s = 1, so L / (L - K). It is no upper bound: layers may take more of the time
    than of the FLOPs.

    Args:
        works: per request, of the dense and the pruned model.

    Returns:
        FLOPs of the median request (`flops_dense`, `flops_tuned`), and medians of the requests'
        ratios; a part that did not run is missing.
    """
    metrics: dict[str, float | int] = {
        f"flops_{name}": int(median(work[model].total for work in works))
        for model, name in enumerate(NAMES)
    }
    for part, field in (("ttft", "total"), ("prefill", "prefill"), ("decode", "decode")):
        each = [(getattr(dense, field), getattr(tuned, field)) for dense, tuned in works]
        if all(tuned for _, tuned in each):
            metrics[f"{part}_ideal"] = float(median(dense / tuned for dense, tuned in each))
    return metrics


def layer_flops(config: Any, tokens: int, cached: int = 0) -> int:
    """FLOPs of one decoder layer with grouped-query attention and a gated MLP.

    Args:
        config: of the text model.
        tokens: T, that pass through the layer.
        cached: tokens before them, in the cache.

    Returns:
        2 T per weight of the seven projections, and 4 T (T + cached) per query channel for the
        scores and the weighted sum.
    """
    width, heads = config.hidden_size, config.num_attention_heads
    per_head = getattr(config, "head_dim", None) or width // heads
    query = heads * per_head
    key = (getattr(config, "num_key_value_heads", None) or heads) * per_head
    weights = width * (2 * query + 2 * key + 3 * config.intermediate_size)
    return int(2 * tokens * weights + 4 * tokens * (tokens + cached) * query)


def vision_flops(config: Any, patches: Sequence[int]) -> int:
    """FLOPs of Qwen3-VL's vision tower: patch embedding, blocks, merger and DeepStack's mergers.

    Args:
        config: of the vision tower.
        patches: of each image (or frame); attention stays within one.
    """
    width, total = config.hidden_size, sum(patches)
    patch = config.in_channels * config.temporal_patch_size * config.patch_size**2
    block = 2 * total * width * (4 * width + 2 * config.intermediate_size)
    block += 4 * width * sum(count * count for count in patches)
    merged = config.spatial_merge_size**2
    mergers = 1 + len(config.deepstack_visual_indexes)
    merger = 2 * (total // merged) * merged * width * (merged * width + config.out_hidden_size)
    return int(2 * total * patch * width + config.depth * block + mergers * merger)


def qwen3_vl_flops(config: Any, tokens: int, patches: Sequence[int]) -> int:
    """FLOPs of Qwen3-VL up to the first token, but for the rotary table's small product.

    Args:
        config: of the whole model.
        tokens: of the prompt, image tokens included.
        patches: of each image, before merging.
    """
    text = config.text_config
    layers: int = text.num_hidden_layers * layer_flops(text, tokens)
    return vision_flops(config.vision_config, patches) + layers + head_flops(text)


def by_formula(models: Sequence[Any], requests: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """FLOPs of the median request by formula, beside those that torch counts.

    Args:
        models: the dense and the pruned one.
        requests: inputs of batches of one prompt, without padding.

    Returns:
        `flops_dense_by_formula` and `flops_tuned_by_formula`; nothing for other families than
        Qwen3-VL.
    """
    found = {}
    for name, model in zip(NAMES, models, strict=True):
        if model.config.model_type != "qwen3_vl":
            return {}
        each = [_request_flops(model.config, inputs) for inputs in requests]
        found[f"flops_{name}_by_formula"] = int(median(each))
    return found


def _request_flops(config: Any, inputs: Mapping[str, Any]) -> int:
    rows, tokens = inputs["input_ids"].shape  # [B, T]
    grids = inputs["image_grid_thw"].tolist() if "image_grid_thw" in inputs else []
    frames = [height * width for time, height, width in grids for _ in range(time)]
    return int(rows * qwen3_vl_flops(config, tokens, frames[: len(frames) // rows]))


def head_flops(config: Any) -> int:
    """FLOPs of the logits of one token."""
    return int(2 * config.hidden_size * config.vocab_size)
