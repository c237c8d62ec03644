"""A tiny random model of every family, and an input with an image for each.

Configurations are JSON as checkpoints on the hub have it: per-layer lists are left to defaults and
patterns where models do so. Decoders are 32 wide, pictures 16 pixels.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interlace.model.chat import IGNORED, PER_TOKEN, Inputs

LAYERS = 6
VOCABULARY, IMAGE = 100, 90
Pixels = Callable[[], dict[str, torch.Tensor]]

FULL, SLIDING, LINEAR, CONV = "full_attention", "sliding_attention", "linear_attention", "conv"


@dataclass(frozen=True)
class Tiny:
    """A tiny model.

    Attributes:
        config: the contents of config.json.
        image_tokens: how many tokens its picture takes.
        pixels: what the processor would make of the picture.
    """

    config: dict[str, Any]
    image_tokens: int
    pixels: Pixels


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def square(*leading: int, side: int = 16) -> Pixels:
    """A picture as an array of pixels."""
    return lambda: {"pixel_values": noise(*leading, 3, side, side)}


def sized(*leading: int, side: int = 16) -> Pixels:
    """A picture as an array of pixels, and its height and width."""
    return lambda: {
        "pixel_values": noise(*leading, 3, side, side),
        "image_sizes": torch.tensor([[side, side]]),
    }


def patches(*shape: int, grid: tuple[int, ...] = (1, 4, 4)) -> Pixels:
    """A picture as rows of patches, and their number in time, height and width."""
    return lambda: {"pixel_values": noise(*shape), "image_grid_thw": torch.tensor([grid])}


def text(model_type: str, **extra: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "tie_word_embeddings": False,
    } | extra


def tower(model_type: str, **extra: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    } | extra


def whole(model_type: str, text: Any, vision: Any, **extra: Any) -> dict[str, Any]:
    ids = {"image_token_id": IMAGE, "tie_word_embeddings": text["tie_word_embeddings"]}
    return {"model_type": model_type, "text_config": text, "vision_config": vision} | ids | extra


def rope(**extra: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0} | extra


QWEN_IDS = {"video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
GLM_IDS = {
    "video_token_id": 91,
    "image_start_token_id": 92,
    "image_end_token_id": 93,
    "video_start_token_id": 94,
    "video_end_token_id": 95,
}
QWEN_TOWER = {
    "depth": 3,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "out_hidden_size": 32,
}
MOE = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "norm_topk_prob": True,
}
DEEPSEEK_MOE = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "routed_scaling_factor": 1.0,
    "norm_topk_prob": True,
}
FLAT_PATCHES = patches(16, 96)


def qwen3_vl(model_type: str = "qwen3_vl", **extra: Any) -> Tiny:
    sections = rope(mrope_section=[4, 2, 2], mrope_interleaved=True)
    vision = QWEN_TOWER | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
    body = text(f"{model_type}_text", rope_parameters=sections, **extra)
    return Tiny(whole(model_type, body, vision, **QWEN_IDS), 4, FLAT_PATCHES)


def qwen2_vl() -> Tiny:
    body = text(
        "qwen2_vl_text",
        rope_parameters=rope(mrope_section=[2, 3, 3]),
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=3,
    )
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    vision |= {"patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2}
    return Tiny(whole("qwen2_vl", body, vision, **QWEN_IDS), 4, FLAT_PATCHES)


def flat(tiny: Tiny) -> Tiny:
    """The same model, its text configuration among the top-level fields."""
    body = {k: v for k, v in tiny.config["text_config"].items() if k != "model_type"}
    rest = {k: v for k, v in tiny.config.items() if k != "text_config"}
    return Tiny(body | rest, tiny.image_tokens, tiny.pixels)


def qwen2_5_vl() -> Tiny:
    body = text(
        "qwen2_5_vl_text",
        rope_parameters=rope(mrope_section=[2, 3, 3]),
        layer_types=[FULL, SLIDING, FULL, FULL, SLIDING, FULL],
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=3,
    )
    vision = QWEN_TOWER | {"window_size": 16, "fullatt_block_indexes": [1]}
    return Tiny(whole("qwen2_5_vl", body, vision, **QWEN_IDS), 4, FLAT_PATCHES)


def qwen3_5(model_type: str = "qwen3_5", **extra: Any) -> Tiny:
    body = text(
        f"{model_type}_text",
        rope_parameters=rope(
            mrope_section=[4, 2, 2], mrope_interleaved=True, partial_rotary_factor=1.0
        ),
        full_attention_interval=3,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        **extra,
    )
    vision = QWEN_TOWER | {"num_position_embeddings": 16, "deepstack_visual_indexes": []}
    return Tiny(whole(model_type, body, vision, **QWEN_IDS), 4, FLAT_PATCHES)


def internvl(kind: str = "qwen2", **extra: Any) -> Tiny:
    vision = tower("internvl_vision", image_size=[16, 16], patch_size=[4, 4])
    config = whole("internvl", text(kind, **extra), vision, image_seq_length=4)
    return Tiny(config, 4, square(1))


def llava(kind: str = "llama", **extra: Any) -> Tiny:
    vision = tower("clip_vision_model", projection_dim=16)
    body = text(kind, **extra)
    config = whole("llava", body, vision, image_token_index=IMAGE, image_seq_length=16)
    return Tiny(config, 16, square(1))


def pixtral() -> Tiny:
    vision = tower("pixtral", head_dim=8, rope_parameters=rope())
    choice = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    body = text("mistral", sliding_window=None)
    config = whole("llava", body, vision, image_token_index=IMAGE, **choice)
    return Tiny(config, 16, sized(1))


def llava_next(kind: str, **extra: Any) -> Tiny:
    vision = tower("clip_vision_model", projection_dim=16, patch_size=8)
    pinpoints = {"image_grid_pinpoints": [[16, 16]], "image_token_index": IMAGE}
    body = text(kind, **extra)
    return Tiny(whole("llava_next", body, vision, **pinpoints), 10, sized(1, 2))


def llava_onevision() -> Tiny:
    vision = tower("siglip_vision_model", patch_size=8)
    pinpoints = {"image_grid_pinpoints": [[16, 16]], "image_token_index": IMAGE}
    config = whole("llava_onevision", text("qwen2"), vision, video_token_index=91, **pinpoints)
    return Tiny(config, 10, sized(1, 2))


def paligemma(kind: str) -> Tiny:
    vision = tower("siglip_vision_model", patch_size=8, projection_dim=32, vision_use_head=False)
    sizes = {"image_token_index": IMAGE, "projection_dim": 32, "hidden_size": 32}
    body = text(kind, sliding_window=4, query_pre_attn_scalar=16, tie_word_embeddings=True)
    if kind == "gemma":
        del body["sliding_window"], body["query_pre_attn_scalar"]
    return Tiny(whole("paligemma", body, vision, **sizes), 4, square(1))


def gemma3() -> Tiny:
    vision = tower("siglip_vision_model", vision_use_head=False)
    body = text(
        "gemma3_text",
        sliding_window=4,
        sliding_window_pattern=3,
        query_pre_attn_scalar=16,
        tie_word_embeddings=True,
    )
    ids = {"image_token_index": IMAGE, "boi_token_index": 92, "eoi_token_index": 93}
    return Tiny(whole("gemma3", body, vision, mm_tokens_per_image=4, **ids), 4, square(1))


def idefics2() -> Tiny:
    perceiver = {"hidden_size": 32, "resampler_n_latents": 3, "resampler_depth": 1}
    perceiver |= {"resampler_n_heads": 2, "resampler_head_dim": 16, "num_key_value_heads": 1}
    vision = tower("idefics2_vision")
    config = whole("idefics2", text("mistral"), vision, perceiver_config=perceiver)
    return Tiny(config, 3, square(1, 1))


def idefics3(model_type: str, **extra: Any) -> Tiny:
    vision = tower(f"{model_type}_vision")
    config = whole(model_type, text("llama", **extra), vision, scale_factor=2)
    return Tiny(config, 4, square(1, 1))


def mistral3(kind: str) -> Tiny:
    vision = tower("pixtral", head_dim=8, rope_parameters=rope())
    scaled = rope(llama_4_scaling_beta=0.1, original_max_position_embeddings=8)
    body = text(kind, sliding_window=None, rope_parameters=scaled)
    config = whole("mistral3", body, vision, image_token_index=IMAGE, spatial_merge_size=2)
    return Tiny(config, 4, sized(1))


def glm4v(model_type: str, kind: str, **extra: Any) -> Tiny:
    sections = rope(mrope_section=[2, 1, 1], partial_rotary_factor=0.5)
    body = text(kind, rope_parameters=sections, **extra)
    vision = QWEN_TOWER | {"image_size": 16}
    return Tiny(whole(model_type, body, vision, **GLM_IDS), 4, FLAT_PATCHES)


def lfm2_vl() -> Tiny:
    body = text("lfm2", full_attn_idxs=[1, 3, 4], conv_L_cache=3, block_auto_adjust_ff_dim=False)
    vision = tower("siglip2_vision_model", num_patches=16, vision_use_head=False)
    del vision["image_size"]

    def pixels() -> dict[str, torch.Tensor]:
        return {
            "pixel_values": noise(1, 16, 48),
            "spatial_shapes": torch.tensor([[4, 4]]),
            "pixel_attention_mask": torch.ones(1, 16, dtype=torch.long),
        }

    return Tiny(whole("lfm2_vl", body, vision, projector_hidden_size=32), 4, pixels)


def ovis2() -> Tiny:
    vision = tower("ovis2_vision", vocab_size=24, hidden_stride=2, num_visual_indicator_tokens=5)
    extra = {"visual_indicator_token_ids": [91, 92, 93, 94, 95], "hidden_size": 32}
    config = whole("ovis2", text("qwen2"), vision, vocab_size=VOCABULARY, **extra)
    return Tiny(config, 4, square(1))


def cohere2(model_type: str) -> Tiny:
    body = text("cohere2", sliding_window=4, sliding_window_pattern=3, tie_word_embeddings=True)
    del body["head_dim"]
    vision = tower("siglip_vision_model", vision_use_head=False)
    extra = {"image_token_index": IMAGE, "alignment_intermediate_size": 32}
    return Tiny(whole(model_type, body, vision, **extra), 4, square(1))


def kimi(kind: str) -> Tiny:
    body = text(
        kind,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=16,
        num_key_value_heads=2,
        first_k_dense_replace=2,
        rope_parameters=rope(),
        **DEEPSEEK_MOE,
    )
    del body["head_dim"]
    vision = tower("kimi_k25_vision", pos_emb_height=4, pos_emb_width=4, num_attention_heads=2)
    del vision["image_size"]
    config = whole("kimi_k25", body, vision, projection_hidden_size=16, **QWEN_IDS)
    return Tiny(config, 4, patches(16, 3, 4, 4))


def granite() -> Tiny:
    vision = tower("siglip_vision_model", hidden_size=64, vision_use_head=False)
    qformer = {"model_type": "blip_2_qformer", "num_hidden_layers": 1, "intermediate_size": 24}
    extra = {
        "image_token_index": IMAGE,
        "image_grid_pinpoints": [[16, 16]],
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[0, 0], [1, 2]],
        "spatial_target_layers": [4, 6, 8, 10],
        "vision_feature_select_strategy": "full",
        "qformer_config": qformer,
    }
    body = text("granite4_vision_text", num_hidden_layers=12)
    del body["head_dim"]
    return Tiny(whole("granite4_vision", body, vision, **extra), 10, sized(1, 2))


TINY: dict[str, Callable[[], Tiny]] = {
    "qwen3_vl": qwen3_vl,
    "qwen3_vl_moe": lambda: qwen3_vl("qwen3_vl_moe", mlp_only_layers=[1, 3], **MOE),
    "qwen3_vl_moe, every second layer sparse": lambda: qwen3_vl(
        "qwen3_vl_moe", mlp_only_layers=[3], decoder_sparse_step=2, **MOE
    ),
    "qwen2_vl": qwen2_vl,
    "qwen2_vl, flat": lambda: flat(qwen2_vl()),
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_5": qwen3_5,
    "qwen3_5_moe": lambda: qwen3_5("qwen3_5_moe", shared_expert_intermediate_size=16, **MOE),
    "internvl": internvl,
    "internvl, llama": lambda: internvl("llama"),
    "internvl, qwen3": lambda: internvl("qwen3"),
    "internvl, qwen3_moe": lambda: internvl("qwen3_moe", mlp_only_layers=[0, 4], **MOE),
    "internvl, gpt_oss": lambda: internvl(
        "gpt_oss",
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=4,
        rope_parameters=rope(),
    ),
    "llava": llava,
    "llava, pixtral": pixtral,
    "llava, qwen2": lambda: llava("qwen2"),
    "llava_next": lambda: llava_next("mistral", sliding_window=6),
    "llava_next, llama": lambda: llava_next("llama"),
    "llava_onevision": llava_onevision,
    "paligemma": lambda: paligemma("gemma"),
    "paligemma, gemma2": lambda: paligemma("gemma2"),
    "gemma3": gemma3,
    "idefics2": idefics2,
    "idefics3": lambda: idefics3("idefics3"),
    "smolvlm": lambda: idefics3("smolvlm"),
    "mistral3": lambda: mistral3("mistral"),
    "mistral3, ministral3": lambda: mistral3("ministral3"),
    "glm4v": lambda: glm4v("glm4v", "glm4v_text"),
    "glm46v": lambda: glm4v("glm46v", "glm4v_text"),
    "glm4v_moe": lambda: glm4v(
        "glm4v_moe", "glm4v_moe_text", first_k_dense_replace=2, **DEEPSEEK_MOE
    ),
    "lfm2_vl": lfm2_vl,
    "ovis2": ovis2,
    "cohere2_vision": lambda: cohere2("cohere2_vision"),
    "aya_vision": lambda: cohere2("aya_vision"),
    "kimi_k25": lambda: kimi("deepseek_v3"),
    "kimi_k25, kimi_k2": lambda: kimi("kimi_k2"),
    "granite4_vision": granite,
}


def save(name: str, folder: Path) -> Path:
    """Save the tiny model of a name; every weight matters to what it computes."""
    return save_config(TINY[name]().config, folder)


def save_config(json_config: dict[str, Any], folder: Path) -> Path:
    """Save a model of random weights of a configuration."""
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    config = CONFIG_MAPPING[json_config["model_type"]].from_dict(copy.deepcopy(json_config))
    model = AutoModelForImageTextToText.from_config(config)
    random = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        drawn = torch.randn(tensor.shape, generator=random)
        if tensor.ndim > 1:
            tensor.copy_(drawn / tensor.shape[-1] ** 0.5)
        else:
            tensor.add_(0.2 * drawn)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(json_config))
    return folder


def inputs(name: str) -> dict[str, torch.Tensor]:
    """A prompt of text around one picture, one row."""
    tiny = TINY[name]()
    picture = [92, *[IMAGE] * tiny.image_tokens, 93]
    ids = torch.tensor([[5, 6, 7, *picture, 8, 9, 10, 11, 12, 13]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | tiny.pixels()
    if "temporal_patch_size" in tiny.config["vision_config"]:  # positions in time, height, width
        batch["mm_token_type_ids"] = (ids == IMAGE).int()
    if tiny.config["model_type"] in ("gemma3", "paligemma"):  # pictures are seen in both directions
        batch["token_type_ids"] = (ids == IMAGE).int()
    return batch


def samples(name: str) -> tuple[Inputs, Inputs]:
    """A sample with the family's picture, and one of text alone, both with answers."""
    batch = inputs(name)
    picture = {k: v[0] if k in PER_TOKEN else v for k, v in batch.items()}
    labels = torch.full_like(picture["input_ids"], IGNORED)
    labels[-5:] = picture["input_ids"][-5:]
    text_only = {k: v[-4:].clone() for k, v in picture.items() if k in PER_TOKEN}
    for kinds in {"mm_token_type_ids", "token_type_ids"} & text_only.keys():
        text_only[kinds].zero_()
    return picture | {"labels": labels}, text_only | {"labels": text_only["input_ids"].clone()}
