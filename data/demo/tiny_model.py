"""A very small but real Qwen3-VL: tokenizer, processor and an untrained model."""

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

PATCH, MERGE, SIDE = 8, 2, 64  # pixels, patches, pixels: 16 visual tokens per image
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
SPECIAL = [PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO]

# Words with their leading space; every digit is a token of its own, as in Qwen's tokenizers.
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"

WRITES = ("o_proj", "down_proj")  # the matrices that write into the decoder's residual stream

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' or 'video' in part -%}
<|vision_start|><|video_pad|><|vision_end|>
{%- else -%}
{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of at most `vocabulary` entries, Qwen's special tokens included."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START, VISION_START, VISION_END, IMAGE, VIDEO],
        model_max_length=2048,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    """Put image and video processors of 8-pixel patches and our chat template beside it."""
    geometry = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    pixels = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**geometry, size=pixels),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**geometry),
        chat_template=CHAT_TEMPLATE,
    )


def build_config(sizes: dict[str, int], tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """Build the configuration of the sizes in params.yaml, DeepStack after all vision blocks."""
    head_dim = sizes["hidden"] // sizes["heads"]
    height = width = head_dim // 2 // 3
    time = head_dim // 2 - height - width
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": sizes["hidden"],
        "intermediate_size": sizes["intermediate"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
        "head_dim": head_dim,
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [time, height, width],
            "mrope_interleaved": True,
        },
        "pad_token_id": ids[PAD],
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 3,
        "hidden_size": sizes["vision_hidden"],
        "intermediate_size": sizes["vision_intermediate"],
        "num_heads": sizes["vision_heads"],
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": sizes["hidden"],
        "num_position_embeddings": (SIDE // PATCH) ** 2,
        "deepstack_visual_indexes": [0, 1, 2],
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids[IMAGE],
        video_token_id=ids[VIDEO],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=True,
    )


@torch.no_grad()
def initialise(model: torch.nn.Module) -> None:
    """Draw weights for a narrow, deep model.

    transformers draws all weights with a deviation of 0.02, made for wide models: at this width,
    images hardly reach the answer, and training stays at chance. Here every matrix keeps the size
    of its input: a deviation of 1 / sqrt(inputs).
    """
    for name, weight in model.named_parameters():
        if "embed_tokens" in name:
            torch.nn.init.normal_(weight, std=0.5)
        elif weight.ndim >= 2:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)


def build_model(
    sizes: dict[str, int], tokenizer: PreTrainedTokenizerFast, seed: int
) -> Qwen3VLForConditionalGeneration:
    """Build a randomly initialised float32 model whose answers end at `<|im_end|>`."""
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(build_config(sizes, tokenizer))
    initialise(model)
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=16,
        do_sample=False,
    )
    return model


@torch.no_grad()
def deepened(
    model: Qwen3VLForConditionalGeneration,
    sizes: dict[str, int],
    layers: int,
    tokenizer: PreTrainedTokenizerFast,
) -> Qwen3VLForConditionalGeneration:
    """Build a deeper model that starts as nearly the same function.

    Each decoder layer becomes `layers / old layers` copies in a row, each of which writes its share
    into the residual stream; everything else is taken over.
    """
    old = len(model.model.language_model.layers)
    copies, rest = divmod(layers, old)
    if rest:
        raise ValueError(f"{layers} layers are not a multiple of {old}")
    deep = build_model(sizes | {"layers": layers}, tokenizer, seed=0)
    weights = dict(model.named_parameters())
    for name, weight in deep.named_parameters():
        before, found, after = name.partition(".layers.")
        if not found or "language_model" not in before:
            weight.copy_(weights[name])
            continue
        layer, _, part = after.partition(".")
        share = 1 / copies if any(writes in part for writes in WRITES) else 1.0
        weight.copy_(share * weights[f"{before}.layers.{int(layer) // copies}.{part}"])
    return deep


def conversations(rows: Iterable[dict[str, Any]]) -> Iterable[str]:
    """Every text of the rows and the roles' names, for the tokenizer to learn from."""
    for row in rows:
        yield from ("user", "assistant")
        for turn in row["texts"]:
            yield turn["user"]
            yield turn["assistant"]
