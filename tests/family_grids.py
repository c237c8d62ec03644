"""Tiny models whose pictures are rows of patches, with their number in height and width."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from family_decoders import (
    DEEPSEEK_MOE,
    GRANITE,
    INTERLEAVED,
    LATENT,
    LINEAR,
    MOE,
    SLIDING,
    Config,
    rope,
    text,
    without,
)
from family_parts import (
    FLAT_PATCHES,
    GLM_IDS,
    IMAGE,
    QWEN2_5_TOWER,
    QWEN2_TOWER,
    QWEN3_TOWER,
    QWEN_IDS,
    QWEN_TOWER,
    Tiny,
    noise,
    patches,
    qwen,
    tower,
    whole,
)


def qwen3_vl(model_type: str = "qwen3_vl", kind: str = "", **extra: Any) -> Tiny:
    sections = rope(mrope_section=[4, 2, 2], mrope_interleaved=True)
    decoder = text(kind or f"{model_type}_text", rope_parameters=sections, **extra)
    return qwen(model_type, decoder, QWEN3_TOWER | {"deepstack_visual_indexes": [0, 1]})


def qwen2(model_type: str, vision: Config, **extra: Any) -> Tiny:
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}
    sections = rope(mrope_section=[2, 3, 3])
    decoder = text(f"{model_type}_text", rope_parameters=sections, **window, **extra)
    return qwen(model_type, decoder, vision)


def flat(tiny: Tiny) -> Tiny:
    """The same model, its text configuration among the top-level fields."""
    decoder = without(tiny.config["text_config"], "model_type")
    return replace(tiny, config=decoder | without(tiny.config, "text_config"))


def qwen3_5(model_type: str = "qwen3_5", **extra: Any) -> Tiny:
    decoder = text(
        f"{model_type}_text",
        rope_parameters=INTERLEAVED,
        **LINEAR,
        **extra,
    )
    return qwen(model_type, decoder, QWEN3_TOWER | {"deepstack_visual_indexes": []})


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


def kimi(kind: str) -> Tiny:
    decoder = text(kind, **LATENT, **DEEPSEEK_MOE | {"num_key_value_heads": 2})
    vision = tower("kimi_k25_vision", pos_emb_height=4, pos_emb_width=4)
    decoder, vision = without(decoder, "head_dim"), without(vision, "image_size")
    config = whole("kimi_k25", decoder, vision, projection_hidden_size=16, **QWEN_IDS)
    return Tiny(config, patches(16, 3, 4, 4))


def audio(**extra: Any) -> Config:
    sizes = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2}
    return sizes | {"encoder_ffn_dim": 24, "output_dim": 32, "num_mel_bins": 8} | extra


def omni(model_type: str, decoder: Config, vision: Config, **hearing: Any) -> Tiny:
    ids = QWEN_IDS | {"audio_token_id": 94, "audio_config": audio(**hearing)}
    if "qwen2" in model_type:
        ids |= {"image_token_index": IMAGE, "video_token_index": 91, "audio_token_index": 94}
    return replace(qwen(model_type, decoder, vision, ids), types=())


def exaone4_5() -> Tiny:
    decoder = text("exaone4", **SLIDING | {"tie_word_embeddings": False})
    vision = QWEN2_5_TOWER | {"num_key_value_heads": 1}
    return replace(qwen("exaone4_5", decoder, vision, {"video_token_id": 91}), types=())


def hyperclovax() -> Tiny:
    decoder = text("hyperclovax", use_post_norm=True, **GRANITE)
    ids = {"video_token_id": 91}
    return replace(qwen("hyperclovax_vision_v2", decoder, QWEN2_5_TOWER, ids), types=())


def video_llama_3() -> Tiny:
    vision = without(tower("video_llama_3_vision"), "image_size")
    config = whole("video_llama_3", text("qwen2"), vision, video_token_id=91)
    return Tiny(config, patches(16, 48) | {"image_merge_sizes": torch.tensor([2])})


def paddleocr_vl() -> Tiny:
    decoder = text("paddleocr_vl_text", rope_parameters=rope(mrope_section=[4, 2, 2]))
    vision = tower("paddleocr_vl_vision", spatial_merge_size=2)
    config = whole("paddleocr_vl", decoder, vision, **QWEN_IDS)
    return Tiny(config, patches(16, 3, 4, 4), types=("mm_token_type_ids",))


def cosmos3_edge() -> Tiny:
    decoder = text("cosmos3_edge_text", rope_parameters=rope(mrope_section=[4, 2, 2]))
    vision = tower("cosmos3_edge_vision", num_patches=16, spatial_merge_size=2)
    ids = QWEN_IDS | {"projector_hidden_size": 32}
    config = whole("cosmos3_edge", decoder, without(vision, "image_size"), **ids)
    return Tiny(config, patches(16, 48), types=("mm_token_type_ids",))


def ernie4_5_vl() -> Tiny:
    experts = {"moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1}
    experts |= {"moe_intermediate_size": [16, 8], "moe_layer_start_index": 1}
    sections = rope(mrope_section=[3, 3, 2])
    decoder = text("ernie4_5_vl_moe_text", rope_parameters=sections, **experts)
    vision = without(without(QWEN_TOWER, "temporal_patch_size"), "out_hidden_size")
    ids = GLM_IDS | {"video_start_token_id": 94, "video_end_token_id": 95}
    config = whole("ernie4_5_vl_moe", without(decoder, "head_dim"), vision, **ids)
    types = ("mm_token_type_ids", "moe_mm_token_type_ids")
    return Tiny(config, patches(16, 48), types=types)


def minicpm(model_type: str, image_tokens: int = 4, **extra: Any) -> Tiny:
    decoder = text("qwen3_5_text", rope_parameters=rope(partial_rotary_factor=0.5), **LINEAR)
    vision = tower(f"{model_type}_vision", num_hidden_layers=3, image_size=32, insert_layer_id=1)
    ids = {"video_token_id": 91, "insert_layer_id": 1, "image_size": 32, "patch_size": 4}
    pixels = {"pixel_values": noise(1, 3, 4, 4 * 64)}
    pixels |= {"target_sizes": torch.tensor([[8, 8]], dtype=torch.int32)}
    return Tiny(whole(model_type, decoder, vision, **ids), pixels, image_tokens, **extra)


KINDS = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
KINDS += ["full_attention", "full_attention"]
ALTERNATING = {"layer_types": KINDS, "sliding_window": 4}
HYBRID = ["conv", "full_attention", "conv", "sliding_attention", "full_attention", "conv"]
GEMMA4_IDS = {"video_token_id": 91, "audio_token_id": 94, "boi_token_id": 92, "eoi_token_id": 93}
BESIDE = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="xy"), -1)
BESIDE = BESIDE.reshape(1, 16, 2)  # column and row of each patch
SPARSE = ["dense", "dense", "sparse", "sparse", "sparse", "sparse"]


def gemma4_text(model_type: str, **extra: Any) -> Config:
    wide = {"global_head_dim": 32, "num_global_key_value_heads": 1, "attention_k_eq_v": True}
    seen = {"use_bidirectional_attention": "vision", "final_logit_softcapping": 30.0}
    return text(model_type, tie_word_embeddings=True, **ALTERNATING, **wide, **seen, **extra)


def gemma4(**extra: Any) -> Tiny:
    vision = without(tower("gemma4_vision", num_key_value_heads=2, head_dim=8), "image_size")
    vision |= {"pooling_kernel_size": 2, "position_embedding_size": 512}
    decoder = gemma4_text("gemma4_text", hidden_size_per_layer_input=0, **extra)
    config = whole("gemma4", decoder, vision, audio_config=None, **GEMMA4_IDS)
    pixels = {"pixel_values": noise(1, 16, 48).sigmoid(), "image_position_ids": BESIDE}
    return Tiny(config, pixels, types=("mm_token_type_ids",))


def gemma4_unified() -> Tiny:
    vision = {"model_type": "gemma4_unified_vision", "mm_embed_dim": 16, "mm_posemb_size": 512}
    vision |= {"patch_size": 4, "pooling_kernel_size": 2, "model_patch_size": 8}
    vision |= {"output_proj_dims": 16, "num_soft_tokens": 4}
    decoder = gemma4_text("gemma4_unified_text")
    config = whole("gemma4_unified", decoder, vision, audio_config=None, **GEMMA4_IDS)
    pixels = {"pixel_values": noise(1, 4, 192).sigmoid(), "image_position_ids": BESIDE[:, :4]}
    return Tiny(config, pixels, types=("mm_token_type_ids",))


def molmo2() -> Tiny:
    linear = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    scaled = {"rope_scaling_layers": [0, 2, 5], "rope_parameters": linear}
    decoder = text("molmo2_text", additional_vocab_size=8, **scaled)
    heads = {"num_key_value_heads": 2, "head_dim": 8}
    vision = tower("molmo2_vision", image_size=[16, 16], num_hidden_layers=3, **heads)
    vision |= {"num_position_embeddings": 16}
    adapter = {"model_type": "molmo2_adapter", "hidden_size": 16, "num_attention_heads": 2}
    adapter |= heads | {"intermediate_size": 24, "text_hidden_size": 32}
    adapter |= {"vision_feature_layer": [2, 1]}
    ids = {"image_patch_id": IMAGE, "image_start_token_id": 92, "image_end_token_id": 93}
    ids |= {"low_res_image_start_token_id": 94, "frame_start_token_id": 95}
    ids |= {"frame_end_token_id": 96, "adapter_config": adapter}
    config = without(whole("molmo2", decoder, vision, **ids), "image_token_id")
    pixels = {"pixel_values": noise(1, 16, 48), "image_grids": torch.tensor([[2, 2, 0, 0]])}
    pixels |= {"image_token_pooling": torch.arange(16).reshape(4, 4)}
    pixels |= {"image_num_crops": torch.tensor([1])}
    return Tiny(config, pixels, types=("mm_token_type_ids",))


def lfm3_vl() -> Tiny:
    decoder = text("lfm3", layer_types=HYBRID, conv_L_cache=3, sliding_window=4)
    vision = tower("lfm3_vl_vision", layer_types=["conv", "full_attention"], num_key_value_heads=1)
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2}
    ids = QWEN_IDS | {"projector_hidden_size": 32}
    return Tiny(whole("lfm3_vl", decoder, without(vision, "image_size"), **ids), FLAT_PATCHES)


def hunyuan_vl() -> Tiny:
    vision = tower("hunyuan_vl_vision", num_key_value_heads=2, spatial_merge_size=2)
    vision |= {"temporal_patch_size": 1, "out_hidden_size": 32, "text_hidden_size": 32}
    vision |= {"max_image_size": 32, "min_image_size": 4, "img_max_token_num": 16}
    vision |= {"max_vit_seq_len": 64}
    ids = {"im_start_id": 92, "im_end_id": 93, "im_newline_id": 94}
    decoder = text("hunyuan_vl_text", rope_parameters=rope(mrope_section=[2, 2, 2, 2]))
    config = whole("hunyuan_vl", decoder, without(vision, "image_size"), **ids)
    return Tiny(config, patches(16, 48), 8, types=("mm_token_type_ids",))


def muse_glimmer() -> Tiny:
    thetas = [10000.0, 10000.0, 0, 10000.0, 0, 0]
    decoder = text("muse_glimmer_text", layer_rope_theta=thetas, **ALTERNATING)
    vision = tower("muse_glimmer_vision", layer_types=["window_attention", "full_attention"])
    vision |= {"merge_size": 2, "patch_temporal": 2, "pos_emb_height": 4, "pos_emb_width": 4}
    ids = {"out_hidden_size": 64, "projector_hidden_size": 32, "video_token_id": 91}
    config = whole("muse_glimmer", decoder, without(vision, "image_size"), **ids)
    return Tiny(config, patches(16, 96))


def minimax_m3_vl() -> Tiny:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 16}
    decoder = text("minimax_m3_vl_text", mlp_layer_types=SPARSE, intermediate_size=16, **experts)
    vision = tower("minimax_m3_vl_vision", spatial_merge_size=2, temporal_patch_size=2)
    ids = {"projector_hidden_size": 32, "image_token_index": IMAGE}
    decoder |= {"dense_intermediate_size": 48}
    return Tiny(whole("minimax_m3_vl", decoder, vision, video_token_index=91, **ids), FLAT_PATCHES)


GRIDS = {
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
    "glm4v": glm4v("glm4v"),
    "glm46v": glm4v("glm46v"),
    "glm4v_moe": glm4v("glm4v_moe", "glm4v_moe_text", **DEEPSEEK_MOE),
    "lfm2_vl": lfm2_vl(),
    "kimi_k25": kimi("deepseek_v3"),
    "kimi_k25, kimi_k2": kimi("kimi_k2"),
}
NEWER_GRIDS = {
    "cosmos3_edge": cosmos3_edge(),
    "cosmos3_omni": qwen3_vl("cosmos3_omni", "qwen3_vl_text"),
    "ernie4_5_vl_moe": ernie4_5_vl(),
    "exaone4_5": exaone4_5(),
    "gemma4": gemma4(
        enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=16
    ),
    "gemma4, dense": gemma4(num_kv_shared_layers=0),
    "gemma4_unified": gemma4_unified(),
    "glm_ocr": glm4v("glm_ocr", "glm_ocr_text"),
    "glmga": glm4v("glmga"),
    "hunyuan_vl": hunyuan_vl(),
    "hyperclovax_vision_v2": hyperclovax(),
    "lfm3_vl": lfm3_vl(),
    "minicpm_ocr": minicpm("minicpm_ocr", 16),
    "minicpmv4_6": minicpm("minicpmv4_6"),
    "minicpmv4_7": minicpm("minicpmv4_7", types=("mm_token_type_ids",)),
    "minimax_m3_vl": minimax_m3_vl(),
    "molmo2": molmo2(),
    "muse_glimmer": muse_glimmer(),
    "paddleocr_vl": paddleocr_vl(),
    "qwen2_5_omni_thinker": omni(
        "qwen2_5_omni_thinker",
        text("qwen2_5_omni_text", rope_parameters=rope(mrope_section=[2, 3, 3])),
        QWEN2_5_TOWER,
    ),
    "qwen3_omni_moe_thinker": omni(
        "qwen3_omni_moe_thinker",
        text(
            "qwen3_omni_moe_text",
            rope_parameters=rope(mrope_section=[4, 2, 2], mrope_interleaved=True),
            mlp_only_layers=[1, 3],
            **MOE,
        ),
        QWEN3_TOWER | {"deepstack_visual_indexes": [0, 1]},
        downsample_hidden_size=8,
    ),
    "video_llama_3": video_llama_3(),
}
