"""Parts of tiny processors: tokenizers, chat templates, image processors and their options.

The tokenizer is a byte-level BPE with the family's special tokens. Chat templates differ in how an
image is written and in whether the text begins with a token of its own; those tokenizers also add
that token by themselves, as published ones do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

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
CONTENT = TEMPLATE[TEMPLATE.index("{% for part") : TEMPLATE.index("{%- endfor -%}") + 14]
EDGE = 16  # pixels, of what a vision tower takes


@dataclass(frozen=True)
class Family:
    """The particulars of a family.

    Attributes:
        build: makes the processor around a tokenizer.
        image: how the chat template writes an image.
        tokens: special tokens, by the tokenizer's attribute for each. Fields of config.json that
            add `_id` or `_index` to an attribute get the token's id.
        begins: what writes `<s>`, if anything: the chat template or the processor itself.
        config: other fields of config.json.
    """

    build: Callable[[Any], Any]
    image: str
    tokens: dict[str, str]
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
    if family is TEXT:  # such templates expect each content as one string
        return BEGIN + TEMPLATE.replace(CONTENT, "{{ message.content -}}")
    return (BEGIN if family.begins == "template" else "") + TEMPLATE.replace("IMAGE", family.image)


def build(
    processor: str,
    images: dict[str, Any],
    videos: dict[str, Any] | None = None,
    *,
    image_class: str = "",
    video_class: str = "",
    **options: Any,
) -> Callable[[Any], Any]:
    """Build a processor around a tokenizer, with image and video processors of these options.

    Their classes are of the same family unless another is given.
    """

    def new(name: str, *arguments: Any, **options: Any) -> Any:
        return getattr(transformers, f"{name}Processor")(*arguments, **options)

    def around(tokenizer: Any) -> Any:
        media = [new(f"{image_class or processor}Image", **images), tokenizer]
        if videos is not None:
            media.append(new(f"{video_class or processor}Video", **videos))
        return new(processor, *media, **options)

    return around


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
FULL = {"vision_feature_select_strategy": "full"}
CLASS_TOKEN = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


def qwen(processor: str, video_class: str = "") -> Callable[[Any], Any]:
    return build(processor, PATCHED, PATCHED, image_class="Qwen2VL", video_class=video_class)


def pixtral(merge: int) -> Callable[[Any], Any]:
    images = {"patch_size": square(4), "size": {"longest_edge": EDGE}}
    return build("Pixtral", images, patch_size=4, spatial_merge_size=merge)


QWEN = {
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "tokens": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    },
}
GLM = {
    "image": "<|begin_of_image|><|image|><|end_of_image|>",
    "tokens": {
        "image_token": "<|image|>",
        "video_token": "<|video|>",
        "image_start_token": "<|begin_of_image|>",
        "image_end_token": "<|end_of_image|>",
        "video_start_token": "<|begin_of_video|>",
        "video_end_token": "<|end_of_video|>",
    },
}
PIXTRAL = {
    "image": "[IMG]",
    "tokens": {"image_token": "[IMG]", "break_token": "[IMG_BREAK]", "end_token": "[IMG_END]"},
    "begins": "template",
}
LLAVA = {"image": "<image>\n", "tokens": {"image_token": "<image>", "video_token": "<video>"}}
IDEFICS = {
    "image": "<image>",
    "tokens": {
        "image_token": "<image>",
        "image_boundary_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    | {f"tile_{r}_{c}": f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)},
    "begins": "template",
}
COHERE_TOKENS = {
    "boi_token": "<|START_OF_IMG|>",
    "eoi_token": "<|END_OF_IMG|>",
    "image_token": "<|IMG_PATCH|>",
    "img_line_break_token": "<|IMG_LINE_BREAK|>",
}
OVIS_TOKENS = ["<IMG_START>", "<IMG_END>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>"]

QWEN3 = Family(qwen("Qwen3VL"), **QWEN)
GLM4V = Family(build("Glm4v", PATCHED, PATCHED), **GLM)
PALIGEMMA = Family(
    build("PaliGemma", SQUARE | {"image_seq_length": 4}, image_class="Siglip"),
    **LLAVA | {"image": "<image>", "begins": "processor"},
)
TEXT = Family(lambda tokenizer: tokenizer, "", {}, begins="template")
