"""A tiny processor of each family, built offline, and a tiny model for its output.

The tokenizer is a byte-level BPE with the family's special tokens. Chat templates differ in how an
image is written and in whether the text begins with a token of its own; those tokenizers also add
that token by themselves, as published ones do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import family_models
import models
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models

BEGIN, PAD, TURN, END = "<s>", "<pad>", "<turn>", "<end>"
TEMPLATE = """\
{%- for message in messages -%}
<turn>{{ message.role }}
{% for part in message.content -%}
{%- if part.type == 'image' -%}IMAGE{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
<end>
{% endfor -%}
{%- if add_generation_prompt -%}
<turn>assistant
{% endif -%}
"""
EDGE = 16  # pixels, of what a vision tower takes


@dataclass(frozen=True)
class Family:
    """What is particular to a family.

    Attributes:
        build: makes the processor around a tokenizer.
        image: how the chat template writes an image.
        tokens: special tokens, by the tokenizer's attribute for each.
        ids: fields of config.json that hold the id of a token.
        begins: what writes `<s>`, if anything: the chat template or the processor itself.
        config: other fields of config.json.
    """

    build: Callable[[Any], Any]
    image: str
    tokens: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    begins: Literal["", "template", "processor"] = ""
    config: dict[str, Any] = field(default_factory=dict)


def tokenizer(family: Family) -> Any:
    special = list(dict.fromkeys([PAD, BEGIN, TURN, END, *family.tokens.values()]))
    backend = Tokenizer(tokenizer_models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300 + len(special),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*models.WORDS, "user", "assistant"], trainer)
    if family.begins == "template":  # the tokenizer would write a second one
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, backend.token_to_id(BEGIN))]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BEGIN if family.begins else None,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=family.tokens,
    )


def chat_template(family: Family) -> str:
    return (BEGIN if family.begins == "template" else "") + TEMPLATE.replace("IMAGE", family.image)


def build(processor: str, images: Any, videos: Any = None, **options: Any) -> Callable[[Any], Any]:
    """Build a processor of transformers around a tokenizer.

    Args:
        processor: its class, without `Processor`.
        images: the class of its image processor, without `ImageProcessor`, and options.
        videos: the same of its video processor, if it has one.
        options: of the processor itself.
    """

    def around(tokenizer: Any) -> Any:
        arguments = [_part("Image", *images), tokenizer]
        if videos is not None:
            arguments.append(_part("Video", *videos))
        return getattr(transformers, f"{processor}Processor")(*arguments, **options)

    return around


def _part(medium: str, name: str, options: dict[str, Any]) -> Any:
    return getattr(transformers, f"{name}{medium}Processor")(**options)


def square(edge: int = EDGE) -> dict[str, int]:
    return {"height": edge, "width": edge}


# patches of 4 pixels, 2 x 2 merged; at most 32 x 32 pixels
PATCHED = {
    "patch_size": 4,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 16 * 16, "longest_edge": 32 * 32},
}
PINPOINTS = {"image_grid_pinpoints": [[16, 32], [32, 16], [32, 32]]}
SQUARE = {"size": square()}
TILED = SQUARE | {"crop_to_patches": True, "max_patches": 3}
CROPPED = {"size": {"shortest_edge": EDGE}, "crop_size": square()}
EDGES = {"size": {"longest_edge": 2 * EDGE}, "max_image_size": {"longest_edge": EDGE}}
CLASS_TOKEN = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


def qwen(processor: str, videos: str) -> Callable[[Any], Any]:
    return build(processor, ("Qwen2VL", PATCHED), (videos, PATCHED))


def pixtral(merge: int) -> Callable[[Any], Any]:
    images = {"patch_size": square(4), "size": {"longest_edge": EDGE}}
    return build("Pixtral", ("Pixtral", images), patch_size=4, spatial_merge_size=merge)


PALIGEMMA = build("PaliGemma", ("Siglip", SQUARE | {"image_seq_length": 4}))
GLM4V = build("Glm4v", ("Glm4v", PATCHED), ("Glm4v", PATCHED))


QWEN = {
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "tokens": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    },
    "ids": {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    },
}
GLM_IDS = {
    "image_token_id": "<|image|>",
    "video_token_id": "<|video|>",
    "image_start_token_id": "<|begin_of_image|>",
    "image_end_token_id": "<|end_of_image|>",
    "video_start_token_id": "<|begin_of_video|>",
    "video_end_token_id": "<|end_of_video|>",
}
GLM = {
    "image": "<|begin_of_image|><|image|><|end_of_image|>",
    "tokens": {name.removesuffix("_id"): token for name, token in GLM_IDS.items()},
    "ids": GLM_IDS,
}
INTERNVL_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
PIXTRAL = {
    "image": "[IMG]",
    "tokens": {"image_token": "[IMG]", "break_token": "[IMG_BREAK]", "end_token": "[IMG_END]"},
    "ids": {"image_token_id": "[IMG]", "image_token_index": "[IMG]"},
    "begins": "template",
}
LLAVA = {
    "image": "<image>\n",
    "tokens": {"image_token": "<image>", "video_token": "<video>"},
    "ids": {"image_token_id": "<image>", "image_token_index": "<image>"},
}
IDEFICS = {
    "image": "<image>",
    "tokens": {
        "image_token": "<image>",
        "image_boundary_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    | {f"tile_{r}_{c}": f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)},
    "ids": {"image_token_id": "<image>"},
    "begins": "template",
}
COHERE_TOKENS = {
    "boi_token": "<|START_OF_IMG|>",
    "eoi_token": "<|END_OF_IMG|>",
    "image_token": "<|IMG_PATCH|>",
    "img_line_break_token": "<|IMG_LINE_BREAK|>",
}
OVIS_TOKENS = ["<IMG_START>", "<IMG_END>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>"]

FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family(qwen("Qwen2VL", "Qwen2VL"), **QWEN),
    "qwen2_5_vl": Family(qwen("Qwen2_5_VL", "Qwen2VL"), **QWEN),
    "qwen3_vl": Family(qwen("Qwen3VL", "Qwen3VL"), **QWEN),
    "qwen3_vl_moe": Family(qwen("Qwen3VL", "Qwen3VL"), **QWEN),
    "qwen3_5": Family(qwen("Qwen3VL", "Qwen3VL"), **QWEN),
    "qwen3_5_moe": Family(qwen("Qwen3VL", "Qwen3VL"), **QWEN),
    "internvl": Family(
        build("InternVL", ("GotOcr2", TILED), ("InternVL", SQUARE), image_seq_length=4),
        "<IMG_CONTEXT>\n",
        INTERNVL_TOKENS,
        {"image_token_id": "<IMG_CONTEXT>"},
    ),
    "llava": Family(
        build("Llava", ("CLIP", CROPPED), patch_size=4, **CLASS_TOKEN), begins="template", **LLAVA
    ),
    "llava, pixtral": Family(pixtral(1), **PIXTRAL),
    "llava_next": Family(
        build("LlavaNext", ("LlavaNext", CROPPED | PINPOINTS), patch_size=8, **CLASS_TOKEN),
        begins="template",
        config=PINPOINTS,
        **LLAVA,
    ),
    "llava_onevision": Family(
        build(
            "LlavaOnevision",
            ("LlavaOnevision", SQUARE | PINPOINTS),
            ("LlavaOnevision", SQUARE),
            num_image_tokens=4,
            vision_feature_select_strategy="full",
        ),
        config=PINPOINTS,
        **LLAVA,
    ),
    "paligemma": Family(PALIGEMMA, **LLAVA | {"image": "<image>"}, begins="processor"),
    "paligemma, gemma2": Family(PALIGEMMA, **LLAVA | {"image": "<image>"}, begins="processor"),
    "gemma3": Family(
        build("Gemma3", ("Gemma3", SQUARE), image_seq_length=4),
        "<start_of_image>",
        {
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        {
            "image_token_id": "<image_soft_token>",
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
        },
        begins="template",
    ),
    "idefics2": Family(
        build(
            "Idefics2",
            (
                "Idefics2",
                {"size": {"shortest_edge": 8, "longest_edge": EDGE}, "do_image_splitting": False},
            ),
            image_seq_len=3,
        ),
        **IDEFICS,
    ),
    "idefics3": Family(build("Idefics3", ("Idefics3", EDGES), image_seq_len=4), **IDEFICS),
    "smolvlm": Family(
        build("SmolVLM", ("SmolVLM", EDGES), ("SmolVLM", EDGES), image_seq_len=4), **IDEFICS
    ),
    "mistral3": Family(pixtral(2), **PIXTRAL),
    "glm4v": Family(GLM4V, **GLM),
    "glm46v": Family(build("Glm46V", ("Glm46V", PATCHED), ("Glm46V", PATCHED)), **GLM),
    "glm4v_moe": Family(GLM4V, **GLM),
    "lfm2_vl": Family(
        build(
            "Lfm2Vl",
            (
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
        ),
        "<image>",
        {
            "image_token": "<image>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail": "<|img_thumbnail|>",
        },
        {"image_token_id": "<image>"},
        begins="template",
    ),
    "ovis2": Family(
        build("Ovis2", ("Ovis2", TILED), image_seq_length=4),
        "<image>\n",
        {"image_token": "<image>", "atom_token": "<IMG_ATOM>"}
        | {f"indicator_{i}": token for i, token in enumerate(OVIS_TOKENS)},
        {"image_token_id": "<IMG_ATOM>"},
    ),
    "cohere2_vision": Family(
        build("Cohere2Vision", ("Cohere2Vision", SQUARE | {"patch_size": 2, "max_patches": 3})),
        "<|IMG_PATCH|>",
        COHERE_TOKENS,
        {"image_token_id": "<|IMG_PATCH|>", "image_token_index": "<|IMG_PATCH|>"},
        begins="template",
    ),
    "aya_vision": Family(
        build("AyaVision", ("GotOcr2", TILED), patch_size=4, img_size=EDGE, downsample_factor=2),
        "<image>",
        COHERE_TOKENS | {"placeholder": "<image>", "image_token": "<|IMG_PATCH|>"},
        {"image_token_id": "<|IMG_PATCH|>", "image_token_index": "<|IMG_PATCH|>"},
        begins="template",
    ),
    "kimi_k25": Family(
        build(
            "Kimi_K25",
            (
                "Kimi_K25",
                {
                    "patch_size": 4,
                    "merge_size": 2,
                    "size": {"max_height": 8, "max_width": 8},
                    "max_patches": 64,
                },
            ),
            ("Kimi_K25", {"patch_size": 4}),
        ),
        "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>",
        {
            "image_token": "<|media_pad|>",
            "video_token": "<|kimi_k25_video_placeholder|>",
            "media_begin": "<|media_begin|>",
            "media_content": "<|media_content|>",
            "media_end": "<|media_end|>",
        },
        {
            "image_token_id": "<|media_pad|>",
            "video_token_id": "<|kimi_k25_video_placeholder|>",
            "vision_start_token_id": "<|media_begin|>",
            "vision_end_token_id": "<|media_end|>",
        },
    ),
    "granite4_vision": Family(
        build(
            "Granite4Vision",
            ("LlavaNext", CROPPED | PINPOINTS),
            patch_size=4,
            vision_feature_select_strategy="full",
            downsample_rate="1/2",
        ),
        config=PINPOINTS,
        **LLAVA,
    ),
}


def save(name: str, folder: Path) -> Path:
    """Save the tiny processor and model of a name."""
    family = FAMILIES[name]
    tok = tokenizer(family)
    processor = family.build(tok)
    processor.chat_template = chat_template(family)
    config = copy.deepcopy(family_models.TINY[name]().config) | family.config
    config |= {key: tok.convert_tokens_to_ids(token) for key, token in family.ids.items()}
    ends = {"bos_token_id": tok.bos_token_id, "eos_token_id": tok.eos_token_id}
    size = {"vocab_size": len(tok), "pad_token_id": tok.pad_token_id}
    config["text_config"] |= ends | size | {"max_position_embeddings": 1024}
    if "visual_indicator_token_ids" in config:
        indicators = [tok.convert_tokens_to_ids(token) for token in OVIS_TOKENS]
        config |= {"visual_indicator_token_ids": indicators, "vocab_size": len(tok)}
    family_models.save_config(config, folder)
    processor.save_pretrained(folder)
    return folder
