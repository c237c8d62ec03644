"""A tiny random model of every family, and an input for each, with an image where it takes some.

Configurations are JSON as checkpoints on the hub have it: per-layer lists are left to defaults and
patterns where models do so. Decoders are 32 wide, pictures 16 pixels.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from family_decoders import (
    DECODERS,
    DEEPSEEK_MOE,
    INTERLEAVED,
    LATENT,
    LINEAR,
    MOE,
    SLIDING,
    VOCABULARY,
    Config,
    rope,
    text,
    without,
)

from interlace.model.chat import IGNORED, PER_TOKEN, Inputs

IMAGE = 90  # the token that stands for a picture


@dataclass(frozen=True)
class Tiny:
    """A tiny model.

    Attributes:
        config: the contents of config.json.
        pixels: what the processor would make of the picture; empty: a family without images.
        image_tokens: how many tokens the picture takes.
    """

    config: Config
    pixels: Inputs
    image_tokens: int = 4


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def square(*leading: int) -> Inputs:
    """A picture as an array of pixels."""
    return {"pixel_values": noise(*leading, 3, 16, 16)}


def sized(*leading: int) -> Inputs:
    """A picture as an array of pixels, and its height and width."""
    return square(*leading) | {"image_sizes": torch.tensor([[16, 16]])}


def patches(*shape: int) -> Inputs:
    """A picture as rows of patches, and their number in time, height and width."""
    return {"pixel_values": noise(*shape), "image_grid_thw": torch.tensor([[1, 4, 4]])}


INDEX = {"image_token_index": IMAGE}
PINPOINTS = INDEX | {"image_grid_pinpoints": [[16, 16]]}
QWEN_IDS = {"video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
GLM_IDS = {"video_token_id": 91, "image_start_token_id": 92, "image_end_token_id": 93}
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
QWEN3_TOWER = QWEN_TOWER | {"num_position_embeddings": 16}
QWEN2_TOWER = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
QWEN2_TOWER |= {"patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2}
QWEN2_5_TOWER = QWEN_TOWER | {"window_size": 16, "fullatt_block_indexes": [1]}
FLAT_PATCHES = patches(16, 96)


def tower(model_type: str, **extra: Any) -> Config:
    return {
        "model_type": model_type,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    } | extra


def siglip(**extra: Any) -> Config:
    return tower("siglip_vision_model", vision_use_head=False, **extra)


def whole(model_type: str, text: Config, vision: Config, **extra: Any) -> Config:
    ids = {"image_token_id": IMAGE, "tie_word_embeddings": text["tie_word_embeddings"]}
    return {"model_type": model_type, "text_config": text, "vision_config": vision} | ids | extra


def qwen(model_type: str, text: Config, vision: Config, ids: Config = QWEN_IDS) -> Tiny:
    return Tiny(whole(model_type, text, vision, **ids), FLAT_PATCHES)


def qwen3_vl(model_type: str = "qwen3_vl", **extra: Any) -> Tiny:
    sections = rope(mrope_section=[4, 2, 2], mrope_interleaved=True)
    decoder = text(f"{model_type}_text", rope_parameters=sections, **extra)
    return qwen(model_type, decoder, QWEN3_TOWER | {"deepstack_visual_indexes": [0, 1]})


def qwen2(model_type: str, vision: Config, **extra: Any) -> Tiny:
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}
    sections = rope(mrope_section=[2, 3, 3])
    decoder = text(f"{model_type}_text", rope_parameters=sections, **window, **extra)
    return qwen(model_type, decoder, vision)


def flat(tiny: Tiny) -> Tiny:
    """The same model, its text configuration among the top-level fields."""
    decoder = without(tiny.config["text_config"], "model_type")
    return Tiny(decoder | without(tiny.config, "text_config"), tiny.pixels)


def qwen3_5(model_type: str = "qwen3_5", **extra: Any) -> Tiny:
    decoder = text(
        f"{model_type}_text",
        rope_parameters=INTERLEAVED,
        **LINEAR,
        **extra,
    )
    return qwen(model_type, decoder, QWEN3_TOWER | {"deepstack_visual_indexes": []})


def internvl(kind: str = "qwen2", **extra: Any) -> Tiny:
    vision = tower("internvl_vision", image_size=[16, 16], patch_size=[4, 4])
    config = whole("internvl", text(kind, **extra), vision, image_seq_length=4)
    return Tiny(config, square(1))


def llava(kind: str = "llama") -> Tiny:
    vision = tower("clip_vision_model", projection_dim=16)
    return Tiny(whole("llava", text(kind), vision, image_seq_length=16, **INDEX), square(1), 16)


def pixtral(model_type: str, decoder: Config, image_tokens: int, **extra: Any) -> Tiny:
    vision = tower("pixtral", head_dim=8, rope_parameters=rope())
    config = whole(model_type, decoder | {"sliding_window": None}, vision, **INDEX, **extra)
    return Tiny(config, sized(1), image_tokens)


def llava_next(kind: str, **extra: Any) -> Tiny:
    vision = tower("clip_vision_model", projection_dim=16, patch_size=8)
    return Tiny(whole("llava_next", text(kind, **extra), vision, **PINPOINTS), sized(1, 2), 10)


def llava_onevision() -> Tiny:
    vision = tower("siglip_vision_model", patch_size=8)
    config = whole("llava_onevision", text("qwen2"), vision, video_token_index=91, **PINPOINTS)
    return Tiny(config, sized(1, 2), 10)


def paligemma(kind: str, **extra: Any) -> Tiny:
    decoder = text(kind, tie_word_embeddings=True, **extra)
    vision = siglip(patch_size=8, projection_dim=32)
    config = whole("paligemma", decoder, vision, projection_dim=32, hidden_size=32, **INDEX)
    return Tiny(config, square(1))


def gemma3() -> Tiny:
    decoder = text("gemma3_text", query_pre_attn_scalar=16, **SLIDING)
    ids = INDEX | {"boi_token_index": 92, "eoi_token_index": 93}
    return Tiny(whole("gemma3", decoder, siglip(), mm_tokens_per_image=4, **ids), square(1))


def idefics2() -> Tiny:
    perceiver = {"hidden_size": 32, "resampler_n_latents": 3, "resampler_depth": 1}
    perceiver |= {"resampler_n_heads": 2, "resampler_head_dim": 16, "num_key_value_heads": 1}
    vision = tower("idefics2_vision")
    config = whole("idefics2", text("mistral"), vision, perceiver_config=perceiver)
    return Tiny(config, square(1, 1), 3)


def idefics3(model_type: str) -> Tiny:
    vision = tower(f"{model_type}_vision")
    return Tiny(whole(model_type, text("llama"), vision, scale_factor=2), square(1, 1))


def mistral3(kind: str) -> Tiny:
    scaled = rope(llama_4_scaling_beta=0.1, original_max_position_embeddings=8)
    return pixtral("mistral3", text(kind, rope_parameters=scaled), 4, spatial_merge_size=2)


def glm4v(model_type: str, kind: str = "glm4v_text", **extra: Any) -> Tiny:
    sections = rope(mrope_section=[2, 1, 1], partial_rotary_factor=0.5)
    decoder = text(kind, rope_parameters=sections, **extra)
    return qwen(model_type, decoder, QWEN_TOWER | {"image_size": 16}, GLM_IDS)


def lfm2_vl() -> Tiny:
    decoder = text("lfm2", full_attn_idxs=[1, 3, 4], conv_L_cache=3, block_auto_adjust_ff_dim=False)
    vision = tower("siglip2_vision_model", num_patches=16, vision_use_head=False)
    config = whole("lfm2_vl", decoder, without(vision, "image_size"), projector_hidden_size=32)
    pixels = {"pixel_values": noise(1, 16, 48), "spatial_shapes": torch.tensor([[4, 4]])}
    return Tiny(config, pixels | {"pixel_attention_mask": torch.ones(1, 16, dtype=torch.long)})


def ovis2() -> Tiny:
    vision = tower("ovis2_vision", vocab_size=24, hidden_stride=2, num_visual_indicator_tokens=5)
    extra = {"visual_indicator_token_ids": [91, 92, 93, 94, 95], "hidden_size": 32}
    return Tiny(whole("ovis2", text("qwen2"), vision, vocab_size=VOCABULARY, **extra), square(1))


def cohere2(model_type: str) -> Tiny:
    decoder = without(text("cohere2", **SLIDING), "head_dim")
    extra = INDEX | {"alignment_intermediate_size": 32}
    return Tiny(whole(model_type, decoder, siglip(), **extra), square(1))


def kimi(kind: str) -> Tiny:
    decoder = text(kind, **LATENT, **DEEPSEEK_MOE | {"num_key_value_heads": 2})
    vision = tower("kimi_k25_vision", pos_emb_height=4, pos_emb_width=4)
    decoder, vision = without(decoder, "head_dim"), without(vision, "image_size")
    config = whole("kimi_k25", decoder, vision, projection_hidden_size=16, **QWEN_IDS)
    return Tiny(config, patches(16, 3, 4, 4))


def granite() -> Tiny:
    qformer = {"model_type": "blip_2_qformer", "num_hidden_layers": 1, "intermediate_size": 24}
    extra = PINPOINTS | {
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[0, 0], [1, 2]],
        "spatial_target_layers": [4, 6, 8, 10],
        "vision_feature_select_strategy": "full",
        "qformer_config": qformer,
    }
    decoder = without(
        text("granite4_vision_text", num_hidden_layers=12, logits_scaling=2.0), "head_dim"
    )
    vision = siglip(hidden_size=64)
    return Tiny(whole("granite4_vision", decoder, vision, **extra), sized(1, 2), 10)


WITH_IMAGES = {
    "qwen3_vl": qwen3_vl(),
    "qwen3_vl_moe": qwen3_vl("qwen3_vl_moe", mlp_only_layers=[1, 3], **MOE),
    "qwen3_vl_moe, every second layer sparse": qwen3_vl(
        "qwen3_vl_moe", mlp_only_layers=[3], decoder_sparse_step=2, **MOE
    ),
    "qwen2_vl": qwen2("qwen2_vl", QWEN2_TOWER),
    "qwen2_vl, flat": flat(qwen2("qwen2_vl", QWEN2_TOWER)),
    "qwen2_5_vl": qwen2(
        "qwen2_5_vl",
        QWEN2_5_TOWER,
        layer_types=["full_attention", "sliding_attention", "full_attention"] * 2,
    ),
    "qwen3_5": qwen3_5(),
    "qwen3_5_moe": qwen3_5("qwen3_5_moe", shared_expert_intermediate_size=16, **MOE),
    "internvl": internvl(),
    "internvl, llama": internvl("llama"),
    "internvl, qwen3": internvl("qwen3"),
    "internvl, qwen3_moe": internvl("qwen3_moe", mlp_only_layers=[0, 4], **MOE),
    "internvl, gpt_oss": internvl(
        "gpt_oss",
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=4,
        rope_parameters=rope(),
    ),
    "llava": llava(),
    "llava, pixtral": pixtral(
        "llava", text("mistral"), 16, vision_feature_layer=-1, vision_feature_select_strategy="full"
    ),
    "llava, qwen2": llava("qwen2"),
    "llava_next": llava_next("mistral", sliding_window=6),
    "llava_next, llama": llava_next("llama"),
    "llava_onevision": llava_onevision(),
    "paligemma": paligemma("gemma"),
    "paligemma, gemma2": paligemma("gemma2", sliding_window=4, query_pre_attn_scalar=16),
    "gemma3": gemma3(),
    "idefics2": idefics2(),
    "idefics3": idefics3("idefics3"),
    "smolvlm": idefics3("smolvlm"),
    "mistral3": mistral3("mistral"),
    "mistral3, ministral3": mistral3("ministral3"),
    "glm4v": glm4v("glm4v"),
    "glm46v": glm4v("glm46v"),
    "glm4v_moe": glm4v("glm4v_moe", "glm4v_moe_text", **DEEPSEEK_MOE),
    "lfm2_vl": lfm2_vl(),
    "ovis2": ovis2(),
    "cohere2_vision": cohere2("cohere2_vision"),
    "aya_vision": cohere2("aya_vision"),
    "kimi_k25": kimi("deepseek_v3"),
    "kimi_k25, kimi_k2": kimi("kimi_k2"),
    "granite4_vision": granite(),
}
TEXT = {name: Tiny(config, {}, 0) for name, config in DECODERS.items()}
TINY = WITH_IMAGES | TEXT


def save(name: str, folder: Path) -> Path:
    """Save the tiny model of a name."""
    return save_config(TINY[name].config, folder)


def save_config(json_config: Config, folder: Path) -> Path:
    """Save a model with random weights."""
    build(json_config).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(json_config))
    return folder


def build(json_config: Config) -> Any:
    """Build a model with random weights, of which each matters to what it computes."""
    from transformers import (
        CONFIG_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    config = CONFIG_MAPPING[json_config["model_type"]].from_dict(copy.deepcopy(json_config))
    text = json_config["model_type"] in TEXT
    model = (AutoModelForCausalLM if text else AutoModelForImageTextToText).from_config(config)
    random = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        weights = torch.randn(tensor.shape, generator=random)
        if tensor.ndim > 1:
            tensor.copy_(weights / tensor.shape[-1] ** 0.5)
        else:
            tensor.add_(0.2 * weights)
    return model


def inputs(name: str) -> Inputs:
    """A prompt of text around one picture if the family takes some, one row."""
    tiny = TINY[name]
    picture = [92, *[IMAGE] * tiny.image_tokens, 93]
    ids = torch.tensor([[5, 6, 7, *picture, 8, 9, 10, 11, 12, 13]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | tiny.pixels
    if "temporal_patch_size" in tiny.config.get(
        "vision_config", {}
    ):  # positions in time, height, width
        batch["mm_token_type_ids"] = (ids == IMAGE).int()
    if tiny.config["model_type"] in ("gemma3", "paligemma"):  # pictures are seen in both directions
        batch["token_type_ids"] = (ids == IMAGE).int()
    return batch


def samples(name: str) -> tuple[Inputs, Inputs]:
    """A sample with the family's picture, and one of text alone, both with answers."""
    picture = {k: v[0] if k in PER_TOKEN else v for k, v in inputs(name).items()}
    labels = torch.full_like(picture["input_ids"], IGNORED)
    labels[-5:] = picture["input_ids"][-5:]
    text_only = {k: v[-4:].clone() for k, v in picture.items() if k in PER_TOKEN}
    for kinds in {"mm_token_type_ids", "token_type_ids"} & text_only.keys():
        text_only[kinds].zero_()
    return picture | {"labels": labels}, text_only | {"labels": text_only["input_ids"].clone()}
