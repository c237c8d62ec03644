"""Tiny models whose pictures are squares of pixels, or tiles of them."""

from __future__ import annotations

from typing import Any

import torch
from family_decoders import (
    GRANITE,
    MOE,
    SLIDING,
    VOCABULARY,
    Config,
    rope,
    text,
    without,
)
from family_parts import (
    IMAGE,
    INDEX,
    PINPOINTS,
    Tiny,
    noise,
    siglip,
    sized,
    square,
    tower,
    whole,
)

SAM = {"output_channels": 16, "mlp_dim": 24, "global_attn_indexes": [1], "window_size": 2}


def internvl(kind: str = "qwen2", **extra: Any) -> Tiny:
    vision = tower("internvl_vision", image_size=[16, 16], patch_size=[4, 4])
    config = whole("internvl", text(kind, **extra), vision, image_seq_length=4)
    return Tiny(config, square(1))


def llava(kind: str = "llama", model_type: str = "llava", **extra: Any) -> Tiny:
    vision = tower("clip_vision_model", projection_dim=16)
    ids = INDEX | {"image_seq_length": 16} | extra
    return Tiny(whole(model_type, text(kind), vision, **ids), square(1), 16)


def pixtral(model_type: str, decoder: Config, image_tokens: int, **extra: Any) -> Tiny:
    vision = tower("pixtral", head_dim=8, rope_parameters=rope())
    config = whole(model_type, decoder | {"sliding_window": None}, vision, **INDEX, **extra)
    return Tiny(config, sized(1), image_tokens)


def llava_next(kind: str, model_type: str = "llava_next", **extra: Any) -> Tiny:
    vision = tower("clip_vision_model", projection_dim=16, patch_size=8)
    ids = PINPOINTS | ({} if model_type == "llava_next" else {"video_token_index": 91})
    return Tiny(whole(model_type, text(kind, **extra), vision, **ids), sized(1, 2), 10)


def llava_onevision() -> Tiny:
    vision = tower("siglip_vision_model", patch_size=8)
    config = whole("llava_onevision", text("qwen2"), vision, video_token_index=91, **PINPOINTS)
    return Tiny(config, sized(1, 2), 10)


def paligemma(kind: str, **extra: Any) -> Tiny:
    decoder = text(kind, tie_word_embeddings=True, **extra)
    vision = siglip(patch_size=8, projection_dim=32)
    config = whole("paligemma", decoder, vision, projection_dim=32, hidden_size=32, **INDEX)
    return Tiny(config, square(1), types=("token_type_ids",))


def gemma3(model_type: str = "gemma3") -> Tiny:
    decoder = text("gemma3_text", query_pre_attn_scalar=16, **SLIDING)
    ids = INDEX | {"boi_token_index": 92, "eoi_token_index": 93}
    config = whole(model_type, decoder, siglip(), mm_tokens_per_image=4, **ids)
    return Tiny(config, square(1), types=("token_type_ids",))


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


def ovis2() -> Tiny:
    vision = tower("ovis2_vision", vocab_size=24, hidden_stride=2, num_visual_indicator_tokens=5)
    extra = {"visual_indicator_token_ids": [91, 92, 93, 94, 95], "hidden_size": 32}
    return Tiny(whole("ovis2", text("qwen2"), vision, vocab_size=VOCABULARY, **extra), square(1))


def cohere2(model_type: str) -> Tiny:
    decoder = without(text("cohere2", **SLIDING), "head_dim")
    extra = INDEX | {"alignment_intermediate_size": 32}
    return Tiny(whole(model_type, decoder, siglip(), **extra), square(1))


def granite() -> Tiny:
    qformer = {
        "model_type": "blip_2_qformer",
        "num_hidden_layers": 1,
        "intermediate_size": 24,
        "hidden_size": 64,  # the tower's, which transformers 5.19 does not set by itself
        "encoder_hidden_size": 64,
        "num_attention_heads": 1,
    }
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


def aria() -> Tiny:
    experts = {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1}
    queries = {"projector_patch_to_query_dict": {"25": 4}}
    vision = tower("idefics3_vision", image_size=980, patch_size=196)  # its processor's size
    config = whole("aria", text("aria_text", **experts), vision, **queries, **INDEX)
    return Tiny(config, {"pixel_values": noise(1, 3, 980, 980)})


def sam(model_type: str, edge: int, **extra: Any) -> Config:
    return tower(model_type, image_size=edge, patch_size=16, **SAM) | extra


def deepseek_vl() -> Tiny:
    return Tiny(whole("deepseek_vl", text("llama"), siglip()), square(1), 16)


def deepseek_vl_hybrid() -> Tiny:
    fine = sam("sam_vision_model", 64, num_pos_feats=8)
    config = whole("deepseek_vl_hybrid", text("llama"), siglip(), high_res_vision_config=fine)
    return Tiny(config, square(1) | {"high_res_pixel_values": noise(1, 3, 64, 64)}, 16)


def got_ocr2(model_type: str) -> Tiny:
    vision = sam(f"{model_type}_vision", 128)
    config = whole(model_type, text("qwen2"), vision, image_seq_length=4, **INDEX)
    return Tiny(config, {"pixel_values": noise(1, 3, 128, 128)})


def janus() -> Tiny:
    vision = tower("janus_vision_model", projection_dim=32, num_image_tokens=16, mlp_ratio=2.0)
    drawing = {"base_channels": 32, "channel_multiplier": [1, 1], "num_embeddings": 8}
    drawing |= {"image_token_embed_dim": 16, "projection_dim": 32, "num_patches": 4, "embed_dim": 4}
    drawing |= {"latent_channels": 16, "num_hidden_layers": 1, "num_res_blocks": 1}
    return Tiny(whole("janus", text("llama"), vision, vq_config=drawing), square(1), 16)


def qianfan_ocr() -> Tiny:
    vision = tower("qianfan_ocr_vision", image_size=[16, 16], patch_size=[4, 4])
    return Tiny(whole("qianfan_ocr", text("qwen3"), vision, image_seq_length=4), square(1))


def fast_vlm() -> Tiny:
    sizes = {"layers": [1] * 5, "embed_dims": [32] * 5}
    vision = {"model_type": "timm_wrapper", "architecture": "fastvit_mci3", "do_pooling": True}
    vision |= {"global_pool": "avg", "model_args": sizes | {"inference_mode": True}}
    vision |= {"hidden_size": 64}
    return Tiny(whole("fast_vlm", text("qwen2"), vision, **INDEX), square(1), 1)


def granite_docling() -> Tiny:
    decoder = without(text("granite_docling_text", **GRANITE), "head_dim")
    vision = tower("granite_docling_vision", num_hidden_layers=3, deepstack_visual_indexes=[0, 1])
    vision |= {"scale_factor": 2, "out_hidden_size": 32}
    pixels = square(1, 1) | {"pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool)}
    return Tiny(whole("granite_docling", decoder, vision), pixels)


def perception_lm() -> Tiny:
    sizes = {"depth": 2, "embed_dim": 16, "img_size": [16, 16], "patch_size": 4, "num_heads": 2}
    sizes |= {"global_pool": "", "use_post_transformer_norm": False, "ref_feat_shape": [4, 4]}
    vision = {"model_type": "timm_wrapper", "architecture": "vit_pe_core_large_patch14_336"}
    vision |= {"model_args": sizes | {"init_values": 0.1}, "num_features": 16, "hidden_size": 16}
    ids = {"vision_use_cls_token": True, "projector_pooling_ratio": 2, "video_token_id": 91}
    return Tiny(whole("perception_lm", text("llama"), vision, **ids), square(1, 1))


def fuyu() -> Tiny:
    decoder = text("persimmon", rope_parameters=rope(partial_rotary_factor=0.5))
    config = {"model_type": "fuyu", "text_config": without(decoder, "head_dim"), "image_size": 16}
    config |= {"patch_size": 8, "image_token_id": IMAGE, "tie_word_embeddings": False}
    config["hidden_size"] = 32  # transformers before 5.21 reads it here
    return Tiny(config, {"pixel_values": noise(1, 4, 192)})


def step3p7() -> Tiny:
    experts = {"moe_intermediate_size": 16, "moe_num_experts": 4, "moe_top_k": 2}
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    decoder = text("step3p5", layer_types=kinds, sliding_window=4, share_expert_dim=16, **experts)
    decoder |= {"mlp_layer_types": ["dense", "dense", "sparse", "sparse", "sparse", "sparse"]}
    vision = tower("step3p5_vision", mlp_ratio=2.0, max_position_embeddings=16)
    return Tiny(whole("step3p7", decoder, vision), square(1), 1)


def inkling() -> Tiny:
    decoder = text("inkling_text", layer_types=["hybrid_sliding", "hybrid"] * 3, rel_extent=8)
    decoder |= {"mlp_layer_types": ["dense", "dense", "sparse", "sparse", "sparse", "sparse"]}
    decoder |= {"sliding_window_size": 4, "logits_mup_width_multiplier": 2.0}
    decoder |= {"moe_intermediate_size": 16, "num_experts_per_tok": 2, "n_routed_experts": 4}
    decoder |= {"n_shared_experts": 1}
    vision = {"model_type": "inkling_vision", "hidden_size": 16, "n_layers": 2, "patch_size": 8}
    vision |= {"num_attention_heads": 2, "temporal_patch_size": 2, "text_hidden_size": 32}
    ids = {"image_bos_token_id": 92, "audio_token_id": 94, "audio_config": None}
    config = whole("inkling_mm_model", decoder, vision, **ids)
    return Tiny(config, {"pixel_values": noise(4, 2, 8, 8, 3)})


SQUARES = {
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
    "ovis2": ovis2(),
    "cohere2_vision": cohere2("cohere2_vision"),
    "aya_vision": cohere2("aya_vision"),
    "granite4_vision": granite(),
}
NEWER_SQUARES = {
    "aria": aria(),
    "deepseek_vl": deepseek_vl(),
    "deepseek_vl_hybrid": deepseek_vl_hybrid(),
    "fast_vlm": fast_vlm(),
    "fuyu": fuyu(),
    "got_ocr2": got_ocr2("got_ocr2"),
    "granite_docling": granite_docling(),
    "inkling_mm_model": inkling(),
    "janus": janus(),
    "lighton_ocr": pixtral("lighton_ocr", text("qwen3"), 4, spatial_merge_size=2),
    "llava_next_video": llava_next("llama", "llava_next_video"),
    "perception_lm": perception_lm(),
    "pp_chart2table": got_ocr2("pp_chart2table"),
    "qianfan_ocr": qianfan_ocr(),
    "step3p7": step3p7(),
    "video_llava": llava("llama", "video_llava", video_token_index=91),
    "vipllava": llava("llama", "vipllava", vision_feature_layers=[-1, -2]),
}
