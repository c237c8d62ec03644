"""Tiny processors of the families that transformers 5 brought, and of documents and films."""

from __future__ import annotations

from typing import Any

import transformers
from family_processor_parts import (
    CLASS_TOKEN,
    CROPPED,
    EDGE,
    FULL,
    GLM,
    IDEFICS,
    LLAVA,
    PATCHED,
    PINPOINTS,
    QWEN,
    SQUARE,
    TILED,
    Family,
    build,
    qwen,
    square,
)

HYPER = {k: v for k, v in QWEN["tokens"].items() if "vision" not in k}
PADDED_IDS = {"image": "<|image_pad|>", "tokens": HYPER}
ONE_FRAME = PATCHED | {"temporal_patch_size": 1}


def exaone() -> Family:
    build_one = build("Exaone4_5_", PATCHED, PATCHED, image_class="Qwen2VL", video_class="Qwen2VL")
    return Family(build_one, **PADDED_IDS)


def deepseek(name: str, **images: Any) -> Family:
    tokens = {"image_token": "<image_placeholder>"}
    sizes = SQUARE | {"min_size": 4} | images
    return Family(build(name, sizes, num_image_tokens=16), "<image_placeholder>", tokens)


def chart2table() -> Family:
    """Its processor leaves it to the chat template to write a token for each feature."""
    tokens = {"image_token": "<imgpad>", "start": "<img>", "end": "</img>"}
    image = f"<img>{4 * '<imgpad>'}</img>\n"
    return Family(build("PPChart2Table", {"size": square(128)}), image, tokens)


def omni(name: str) -> Family:
    tokens = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "audio_token": "<|audio_pad|>",
        "vision_bos_token": "<|vision_bos|>",
        "vision_eos_token": "<|vision_eos|>",
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
    }

    def around(tokenizer: Any) -> Any:
        return getattr(transformers, f"{name}Processor")(
            transformers.Qwen2VLImageProcessor(**PATCHED),
            transformers.Qwen2VLVideoProcessor(**PATCHED),
            transformers.WhisperFeatureExtractor(feature_size=8),
            tokenizer,
        )

    return Family(around, "<|vision_bos|><|image_pad|><|vision_eos|>", tokens)


def minicpm(name: str, downsample: str = "16x", image_class: str = "") -> Family:
    options = {"patch_size": 4, "scale_resolution": 32, "max_slice_nums": 4}
    options |= {"downsample_mode": downsample}
    tokens = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    }

    def around(tokenizer: Any) -> Any:
        kind = image_class or name
        return getattr(transformers, f"{name}Processor")(
            getattr(transformers, f"{kind}ImageProcessor")(**options),
            getattr(transformers, f"{kind}VideoProcessor")(**options),
            tokenizer,
        )

    return Family(around, "<|image_pad|>", tokens)


def llava_video(name: str, images: dict[str, Any], image_class: str = "", **options: Any) -> Any:
    def around(tokenizer: Any) -> Any:
        new = getattr(transformers, f"{name}Processor")
        image = getattr(transformers, f"{image_class or name}ImageProcessor")(**images)
        video = getattr(transformers, f"{name}VideoProcessor")(**images)
        return new(image_processor=image, video_processor=video, tokenizer=tokenizer, **options)

    return around


def gemma4(name: str) -> Family:
    options = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}

    def around(tokenizer: Any) -> Any:
        return getattr(transformers, f"{name}Processor")(
            feature_extractor=getattr(transformers, f"{name}AudioFeatureExtractor")(),
            image_processor=getattr(transformers, f"{name}ImageProcessor")(**options),
            tokenizer=tokenizer,
            video_processor=getattr(transformers, f"{name}VideoProcessor")(**options),
        )

    tokens = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
    tokens |= {"video_token": "<|video|>", "audio_token": "<|audio|>"}
    tokens |= {"boa_token": "<|audio>", "eoa_token": "<audio|>"}
    return Family(around, "<|image|>", tokens, begins="template")


MOLMO2_TOKENS = ["<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<im_end>"]
MOLMO2_TOKENS += ["<frame_start>", "<frame_end>", "<im_low>"]


def molmo2() -> Family:
    options = {"size": square(), "patch_size": 4, "max_crops": 2, "overlap_margins": [1, 1]}

    def around(tokenizer: Any) -> Any:
        images = transformers.Molmo2ImageProcessor(**options)
        videos = transformers.Molmo2VideoProcessor(size=square(), patch_size=4)
        return transformers.Molmo2Processor(images, videos, tokenizer)

    tokens = {"image_token": "<|image|>", "video_token": "<|video|>", "image_patch": "<im_patch>"}
    tokens |= {f"part_{i}": token for i, token in enumerate(MOLMO2_TOKENS)}
    return Family(around, "<|image|>", tokens, begins="template")


NEWER = {
    "gemma4": gemma4("Gemma4"),
    "gemma4_unified": gemma4("Gemma4Unified"),
    "granite_docling": Family(
        build("GraniteDocling", {"size": square(), "max_patches": 2}, image_seq_len=4), **IDEFICS
    ),
    "lfm3_vl": Family(
        build("Lfm3Vl", PATCHED, PATCHED, image_class="Qwen2VL", video_class="Qwen2VL"), **QWEN
    ),
    "molmo2": molmo2(),
    "aria": Family(
        build(
            "Aria",
            {"split_image": False},
            size_conversion={980: 4},
        ),
        "<|img|>\n",
        {"image_token": "<|img|>"},
    ),
    "cosmos3_edge": Family(build("Cosmos3Edge", ONE_FRAME, ONE_FRAME), **QWEN),
    "cosmos3_omni": Family(qwen("Qwen3VL"), **QWEN),
    "deepseek_vl": deepseek("DeepseekVL"),
    "deepseek_vl_hybrid": deepseek("DeepseekVLHybrid", high_res_size=square(64)),
    "ernie4_5_vl_moe": Family(
        build("Ernie4_5_VLMoe", ONE_FRAME, PATCHED | {"draw_on_frames": False}),
        "<|image_start|><|image|><|image_end|>",
        {
            "image_token": "<|image|>",
            "video_token": "<|video|>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "video_start_token": "<|video_start|>",
            "video_end_token": "<|video_end|>",
        },
    ),
    "exaone4_5": exaone(),
    "fast_vlm": Family(
        build("Llava", CROPPED, image_class="CLIP", patch_size=EDGE, **FULL), **LLAVA
    ),
    "glm_ocr": Family(build("Glm46V", PATCHED, PATCHED), **GLM),
    "glmga": Family(
        build("Glm46V", PATCHED, PATCHED, image_class="Glmga", video_class="Glmga"), **GLM
    ),
    "pp_chart2table": chart2table(),
    "hyperclovax_vision_v2": Family(
        build(
            "HyperCLOVAXVisionV2", PATCHED, PATCHED, image_class="Qwen2VL", video_class="Qwen2VL"
        ),
        **PADDED_IDS,
    ),
    "janus": Family(
        build("Janus", SQUARE | {"min_size": 4}, num_image_tokens=16),
        "<image>",
        {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"},
    ),
    "lighton_ocr": Family(
        build(
            "LightOnOcr",
            {"patch_size": square(8), "size": {"longest_edge": EDGE}},
            image_class="Pixtral",
            patch_size=4,
            spatial_merge_size=2,
        ),
        "<|image_pad|>",
        {
            "image_token": "<|image_pad|>",
            "image_break_token": "<|vision_pad|>",
            "image_end_token": "<|vision_end|>",
        },
    ),
    "llava_next_video": Family(
        llava_video(
            "LlavaNextVideo", CROPPED | PINPOINTS, "LlavaNext", patch_size=8, **CLASS_TOKEN
        ),
        begins="template",
        config=PINPOINTS,
        **LLAVA,
    ),
    "minicpm_ocr": minicpm("MiniCPMOcr", "4x"),
    "minicpmv4_6": minicpm("MiniCPMV4_6"),
    "minicpmv4_7": minicpm("MiniCPMV4_7", image_class="MiniCPMV4_6"),
    "paddleocr_vl": Family(build("PaddleOCRVL", ONE_FRAME), **QWEN),
    "qianfan_ocr": Family(
        build("QianfanOCR", TILED, image_class="GotOcr2", image_seq_length=4),
        "<image>\n",
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "image_token": "<IMG_CONTEXT>",
        },
    ),
    "qwen2_5_omni_thinker": omni("Qwen2_5Omni"),
    "qwen3_omni_moe_thinker": omni("Qwen3OmniMoe"),
    "video_llama_3": Family(build("VideoLlama3", ONE_FRAME, ONE_FRAME), **PADDED_IDS),
    "video_llava": Family(
        llava_video("VideoLlava", CROPPED, patch_size=4, **CLASS_TOKEN),
        begins="template",
        **LLAVA,
    ),
    "vipllava": Family(
        build("Llava", CROPPED, image_class="CLIP", patch_size=4, **CLASS_TOKEN),
        begins="template",
        **LLAVA,
    ),
}
