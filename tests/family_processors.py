"""A tiny processor of every family, made offline, and a tiny model that takes what it makes.

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
class Made:
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


def tokenizer(made: Made) -> Any:
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys([PAD, BEGIN, TURN, END, *made.tokens.values()]))
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
    if made.begins == "template":  # the tokenizer would write a second one
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, backend.token_to_id(BEGIN))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BEGIN if made.begins else None,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=made.tokens,
    )


def chat_template(made: Made) -> str:
    return (BEGIN if made.begins == "template" else "") + TEMPLATE.replace("IMAGE", made.image)


def patched(**size: int) -> dict[str, Any]:
    """Patches of 4 pixels, 2 x 2 merged; at most 32 x 32 pixels."""
    area = {"shortest_edge": 16 * 16, "longest_edge": 32 * 32}
    return {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2, "size": area} | size


def square(edge: int = EDGE) -> dict[str, int]:
    return {"height": edge, "width": edge}


def qwen2_vl(tok: Any) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    return Qwen2VLProcessor(
        Qwen2VLImageProcessor(**patched()), tok, Qwen2VLVideoProcessor(**patched())
    )


def qwen2_5_vl(tok: Any) -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**patched()), tok, Qwen2VLVideoProcessor(**patched())
    )


def qwen3_vl(tok: Any) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    return Qwen3VLProcessor(
        Qwen2VLImageProcessor(**patched()), tok, Qwen3VLVideoProcessor(**patched())
    )


def glm4v(tok: Any) -> Any:
    from transformers import Glm4vImageProcessor, Glm4vProcessor, Glm4vVideoProcessor

    return Glm4vProcessor(Glm4vImageProcessor(**patched()), tok, Glm4vVideoProcessor(**patched()))


def glm46v(tok: Any) -> Any:
    from transformers import Glm46VImageProcessor, Glm46VProcessor, Glm46VVideoProcessor

    return Glm46VProcessor(
        Glm46VImageProcessor(**patched()), tok, Glm46VVideoProcessor(**patched())
    )


def kimi(tok: Any) -> Any:
    from transformers import (
        Kimi_K25ImageProcessor,
        Kimi_K25Processor,
        Kimi_K25VideoProcessor,
    )

    size = {"patch_size": 4, "merge_size": 2, "size": {"max_height": 8, "max_width": 8}}
    return Kimi_K25Processor(
        Kimi_K25ImageProcessor(**size, max_patches=64), tok, Kimi_K25VideoProcessor(patch_size=4)
    )


def internvl(tok: Any) -> Any:
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    images = GotOcr2ImageProcessor(size=square(), crop_to_patches=True, max_patches=3)
    return InternVLProcessor(images, tok, InternVLVideoProcessor(size=square()), image_seq_length=4)


def llava(tok: Any) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor

    images = CLIPImageProcessor(size={"shortest_edge": EDGE}, crop_size=square())
    return LlavaProcessor(
        images,
        tok,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def pixtral(merge: int) -> Callable[[Any], Any]:
    def build(tok: Any) -> Any:
        from transformers import PixtralImageProcessor, PixtralProcessor

        images = PixtralImageProcessor(patch_size=square(4), size={"longest_edge": EDGE})
        return PixtralProcessor(images, tok, patch_size=4, spatial_merge_size=merge)

    return build


PINPOINTS = [[16, 32], [32, 16], [32, 32]]


def llava_next(tok: Any) -> Any:
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    images = LlavaNextImageProcessor(
        size={"shortest_edge": EDGE}, crop_size=square(), image_grid_pinpoints=PINPOINTS
    )
    return LlavaNextProcessor(
        images,
        tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def llava_onevision(tok: Any) -> Any:
    from transformers import (
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    return LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=square(), image_grid_pinpoints=PINPOINTS),
        tok,
        LlavaOnevisionVideoProcessor(size=square()),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
    )


def granite(tok: Any) -> Any:
    from transformers import Granite4VisionProcessor, LlavaNextImageProcessor

    images = LlavaNextImageProcessor(
        size={"shortest_edge": EDGE}, crop_size=square(), image_grid_pinpoints=PINPOINTS
    )
    return Granite4VisionProcessor(
        images, tok, patch_size=4, vision_feature_select_strategy="full", downsample_rate="1/2"
    )


def gemma3(tok: Any) -> Any:
    from transformers import Gemma3ImageProcessor, Gemma3Processor

    return Gemma3Processor(Gemma3ImageProcessor(size=square()), tok, image_seq_length=4)


def paligemma(tok: Any) -> Any:
    from transformers import PaliGemmaProcessor, SiglipImageProcessor

    images = SiglipImageProcessor(size=square(), image_seq_length=4)
    return PaliGemmaProcessor(images, tok)


def idefics2(tok: Any) -> Any:
    from transformers import Idefics2ImageProcessor, Idefics2Processor

    edges = {"shortest_edge": 8, "longest_edge": EDGE}
    images = Idefics2ImageProcessor(size=edges, do_image_splitting=False)
    return Idefics2Processor(images, tok, image_seq_len=3)


def idefics3(tok: Any) -> Any:
    from transformers import Idefics3ImageProcessor, Idefics3Processor

    edges = {"size": {"longest_edge": 2 * EDGE}, "max_image_size": {"longest_edge": EDGE}}
    return Idefics3Processor(Idefics3ImageProcessor(**edges), tok, image_seq_len=4)


def smolvlm(tok: Any) -> Any:
    from transformers import SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    edges = {"size": {"longest_edge": 2 * EDGE}, "max_image_size": {"longest_edge": EDGE}}
    return SmolVLMProcessor(
        SmolVLMImageProcessor(**edges), tok, SmolVLMVideoProcessor(**edges), image_seq_len=4
    )


def lfm2_vl(tok: Any) -> Any:
    from transformers import Lfm2VlImageProcessor, Lfm2VlProcessor

    images = Lfm2VlImageProcessor(
        encoder_patch_size=4,
        tile_size=EDGE,
        min_image_tokens=1,
        max_image_tokens=4,
        max_tiles=3,
        max_num_patches=16,
    )
    return Lfm2VlProcessor(images, tok)


def ovis2(tok: Any) -> Any:
    from transformers import Ovis2ImageProcessor, Ovis2Processor

    images = Ovis2ImageProcessor(size=square(), crop_to_patches=True, max_patches=3)
    return Ovis2Processor(images, tok, image_seq_length=4)


def cohere2_vision(tok: Any) -> Any:
    from transformers import Cohere2VisionImageProcessor, Cohere2VisionProcessor

    images = Cohere2VisionImageProcessor(size=square(), patch_size=2, max_patches=3)
    return Cohere2VisionProcessor(images, tok)


def aya_vision(tok: Any) -> Any:
    from transformers import AyaVisionProcessor, GotOcr2ImageProcessor

    images = GotOcr2ImageProcessor(size=square(), crop_to_patches=True, max_patches=3)
    return AyaVisionProcessor(images, tok, patch_size=4, img_size=EDGE, downsample_factor=2)


QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
QWEN_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
QWEN = {"image": "<|vision_start|><|image_pad|><|vision_end|>", "tokens": QWEN_TOKENS}
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

MADE: dict[str, Made] = {
    "qwen2_vl": Made(qwen2_vl, ids=QWEN_IDS, **QWEN),
    "qwen2_5_vl": Made(qwen2_5_vl, ids=QWEN_IDS, **QWEN),
    "qwen3_vl": Made(qwen3_vl, ids=QWEN_IDS, **QWEN),
    "qwen3_vl_moe": Made(qwen3_vl, ids=QWEN_IDS, **QWEN),
    "qwen3_5": Made(qwen3_vl, ids=QWEN_IDS, **QWEN),
    "qwen3_5_moe": Made(qwen3_vl, ids=QWEN_IDS, **QWEN),
    "internvl": Made(
        internvl, "<IMG_CONTEXT>\n", INTERNVL_TOKENS, {"image_token_id": "<IMG_CONTEXT>"}
    ),
    "llava": Made(llava, begins="template", **LLAVA),
    "llava, pixtral": Made(pixtral(1), **PIXTRAL),
    "llava_next": Made(
        llava_next, begins="template", config={"image_grid_pinpoints": PINPOINTS}, **LLAVA
    ),
    "llava_onevision": Made(llava_onevision, config={"image_grid_pinpoints": PINPOINTS}, **LLAVA),
    "paligemma": Made(paligemma, **LLAVA | {"image": "<image>"}, begins="processor"),
    "paligemma, gemma2": Made(paligemma, **LLAVA | {"image": "<image>"}, begins="processor"),
    "gemma3": Made(
        gemma3,
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
    "idefics2": Made(idefics2, **IDEFICS),
    "idefics3": Made(idefics3, **IDEFICS),
    "smolvlm": Made(smolvlm, **IDEFICS),
    "mistral3": Made(pixtral(2), **PIXTRAL),
    "glm4v": Made(glm4v, **GLM),
    "glm46v": Made(glm46v, **GLM),
    "glm4v_moe": Made(glm4v, **GLM),
    "lfm2_vl": Made(
        lfm2_vl,
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
    "ovis2": Made(
        ovis2,
        "<image>\n",
        {"image_token": "<image>", "atom_token": "<IMG_ATOM>"}
        | {f"indicator_{i}": token for i, token in enumerate(OVIS_TOKENS)},
        {"image_token_id": "<IMG_ATOM>"},
    ),
    "cohere2_vision": Made(
        cohere2_vision,
        "<|IMG_PATCH|>",
        COHERE_TOKENS,
        {"image_token_id": "<|IMG_PATCH|>", "image_token_index": "<|IMG_PATCH|>"},
        begins="template",
    ),
    "aya_vision": Made(
        aya_vision,
        "<image>",
        COHERE_TOKENS | {"placeholder": "<image>", "image_token": "<|IMG_PATCH|>"},
        {"image_token_id": "<|IMG_PATCH|>", "image_token_index": "<|IMG_PATCH|>"},
        begins="template",
    ),
    "kimi_k25": Made(
        kimi,
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
    "granite4_vision": Made(granite, config={"image_grid_pinpoints": PINPOINTS}, **LLAVA),
}


def save(name: str, folder: Path) -> Path:
    """Save the tiny processor and model of a name."""
    made = MADE[name]
    tok = tokenizer(made)
    processor = made.build(tok)
    processor.chat_template = chat_template(made)
    config = copy.deepcopy(family_models.TINY[name]().config) | made.config
    config |= {key: tok.convert_tokens_to_ids(token) for key, token in made.ids.items()}
    ends = {"bos_token_id": tok.bos_token_id, "eos_token_id": tok.eos_token_id}
    size = {"vocab_size": len(tok), "pad_token_id": tok.pad_token_id}
    config["text_config"] |= ends | size | {"max_position_embeddings": 1024}
    if "visual_indicator_token_ids" in config:
        indicators = [tok.convert_tokens_to_ids(token) for token in OVIS_TOKENS]
        config |= {"visual_indicator_token_ids": indicators, "vocab_size": len(tok)}
    family_models.save_config(config, folder)
    processor.save_pretrained(folder)
    return folder
