"""A tiny processor of each family, built offline, and a tiny model for its output.

A family without images has a tokenizer in its place.
"""

from __future__ import annotations

import copy
from pathlib import Path

import family_models
from family_processor_parts import (
    CLASS_TOKEN,
    COHERE_TOKENS,
    CROPPED,
    EDGE,
    EDGES,
    FULL,
    GLM,
    GLM4V,
    IDEFICS,
    LLAVA,
    OVIS_TOKENS,
    PALIGEMMA,
    PATCHED,
    PINPOINTS,
    PIXTRAL,
    QWEN,
    QWEN3,
    SQUARE,
    TEXT,
    TILED,
    Family,
    build,
    chat_template,
    pixtral,
    qwen,
    tokenizer,
)
from family_processors_newer import NEWER

from interlace.model.families import text_config

FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family(qwen("Qwen2VL"), **QWEN),
    "qwen2_5_vl": Family(qwen("Qwen2_5_VL", video_class="Qwen2VL"), **QWEN),
    "qwen3_vl": QWEN3,
    "qwen3_vl_moe": QWEN3,
    "qwen3_5": QWEN3,
    "qwen3_5_moe": QWEN3,
    "internvl": Family(
        build("InternVL", TILED, SQUARE, image_class="GotOcr2", image_seq_length=4),
        "<IMG_CONTEXT>\n",
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "llava": Family(
        build("Llava", CROPPED, image_class="CLIP", patch_size=4, **CLASS_TOKEN),
        begins="template",
        **LLAVA,
    ),
    "llava, pixtral": Family(pixtral(1), **PIXTRAL),
    "llava_next": Family(
        build("LlavaNext", CROPPED | PINPOINTS, patch_size=8, **CLASS_TOKEN),
        begins="template",
        config=PINPOINTS,
        **LLAVA,
    ),
    "llava_onevision": Family(
        build("LlavaOnevision", SQUARE | PINPOINTS, SQUARE, num_image_tokens=4, **FULL),
        config=PINPOINTS,
        **LLAVA,
    ),
    "paligemma": PALIGEMMA,
    "paligemma, gemma2": PALIGEMMA,
    "gemma3": Family(
        build("Gemma3", SQUARE, image_seq_length=4),
        "<start_of_image>",
        {
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        begins="template",
    ),
    "idefics2": Family(
        build(
            "Idefics2",
            {"size": {"shortest_edge": 8, "longest_edge": EDGE}, "do_image_splitting": False},
            image_seq_len=3,
        ),
        **IDEFICS,
    ),
    "idefics3": Family(build("Idefics3", EDGES, image_seq_len=4), **IDEFICS),
    "smolvlm": Family(build("SmolVLM", EDGES, EDGES, image_seq_len=4), **IDEFICS),
    "mistral3": Family(pixtral(2), **PIXTRAL),
    "glm4v": GLM4V,
    "glm46v": Family(build("Glm46V", PATCHED, PATCHED), **GLM),
    "glm4v_moe": GLM4V,
    "lfm2_vl": Family(
        build(
            "Lfm2Vl",
            {
                "encoder_patch_size": 4,
                "tile_size": EDGE,
                "min_image_tokens": 1,
                "max_image_tokens": 4,
                "max_tiles": 3,
                "max_num_patches": 16,
            },
        ),
        "<image>",
        {
            "image_token": "<image>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail": "<|img_thumbnail|>",
        },
        begins="template",
    ),
    "ovis2": Family(
        build("Ovis2", TILED, image_seq_length=4),
        "<image>\n",
        {"image_token": "<image>", "atom_token": "<IMG_ATOM>"}
        | {f"indicator_{i}": token for i, token in enumerate(OVIS_TOKENS)},
    ),
    "cohere2_vision": Family(
        build("Cohere2Vision", SQUARE | {"patch_size": 2, "max_patches": 3}),
        "<|IMG_PATCH|>",
        COHERE_TOKENS,
        begins="template",
    ),
    "aya_vision": Family(
        build(
            "AyaVision",
            TILED,
            image_class="GotOcr2",
            patch_size=4,
            img_size=EDGE,
            downsample_factor=2,
        ),
        "<image>",
        COHERE_TOKENS | {"placeholder": "<image>"},
        begins="template",
    ),
    "kimi_k25": Family(
        build(
            "Kimi_K25",
            {
                "patch_size": 4,
                "merge_size": 2,
                "size": {"max_height": 8, "max_width": 8},
                "max_patches": 64,
            },
            {"patch_size": 4},
        ),
        "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>",
        {
            "image_token": "<|media_pad|>",
            "video_token": "<|kimi_k25_video_placeholder|>",
            "media_begin": "<|media_begin|>",
            "media_content": "<|media_content|>",
            "media_end": "<|media_end|>",
            "vision_start_token": "<|media_begin|>",
            "vision_end_token": "<|media_end|>",
        },
    ),
    "granite4_vision": Family(
        build(
            "Granite4Vision",
            CROPPED | PINPOINTS,
            image_class="LlavaNext",
            patch_size=4,
            downsample_rate="1/2",
            **FULL,
        ),
        config=PINPOINTS,
        **LLAVA,
    ),
}

FAMILIES |= NEWER
# Families tried on inputs that no processor made.
SYNTHETIC = (
    *("fuyu", "got_ocr2", "hunyuan_vl", "inkling_mm_model", "minimax_m3_vl", "muse_glimmer"),
    *("perception_lm", "step3p7"),
)
FAMILIES |= {name: TEXT for name in family_models.TEXT if "," not in name}


def save(name: str, folder: Path) -> Path:
    """Save the tiny processor and model of a name."""
    family = FAMILIES[name]
    tok = tokenizer(family)
    processor = family.build(tok)
    processor.chat_template = chat_template(family)
    config = copy.deepcopy(family_models.ALL[name].config) | family.config
    for attribute, token in family.tokens.items():
        for key in config.keys() & {f"{attribute}_id", f"{attribute}_index"}:
            config[key] = tok.convert_tokens_to_ids(token)
    text_config(config).update(
        vocab_size=len(tok),
        max_position_embeddings=1024,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
    )
    if "visual_indicator_token_ids" in config:
        indicators = tok.convert_tokens_to_ids(OVIS_TOKENS)
        config |= {"visual_indicator_token_ids": indicators, "vocab_size": len(tok)}
        config["image_token_id"] = tok.convert_tokens_to_ids("<IMG_ATOM>")
    family_models.save_config(config, folder)
    processor.save_pretrained(folder)
    return folder
