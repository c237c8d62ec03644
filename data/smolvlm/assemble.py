"""An Idefics3 whose decoder is SmolLM2: processor, configuration, and a model with a new tower."""

from pathlib import Path
from typing import Any

import torch
from captions import WORDS
from drawing import SIDE
from tiny_model import initialise
from tokenizers import AddedToken
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaForCausalLM,
)

from interlace.errors import InputError

PATCH, MERGE = 8, 2  # pixels, patches: WORDS visual tokens per image
IMAGE = "<image>"
ADDED = ("<fake_token_around_image>", IMAGE, "<global-img>", "<end_of_utterance>")

# The decoder's own, without the system prompt that it writes by default: 20 tokens in every row.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part -%}
<image>
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


def check_decoder(decoder: Path) -> None:
    """Refuse a folder without the decoder's checkpoint.

    Raises:
        InputError: it has no config.json.
    """
    if not (decoder / "config.json").is_file():
        raise InputError(
            f"--decoder {decoder}: no checkpoint there; build it by `dvc repro convert` in"
            " data/smollm2, or name its folder"
        )


def build_processor(decoder: Path) -> Idefics3Processor:
    """Put an image processor, and tokens around images, beside the decoder's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    added = [AddedToken(token, normalized=False, special=True) for token in ADDED]
    tokenizer.add_tokens(added, special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    edge = {"longest_edge": SIDE}
    images = Idefics3ImageProcessor(size=edge, max_image_size=edge, do_image_splitting=False)
    return Idefics3Processor(images, tokenizer, image_seq_len=WORDS, chat_template=CHAT_TEMPLATE)


def build_config(decoder: Any, tower: dict[str, int], tokenizer: Any) -> Idefics3Config:
    """Build the configuration around that of the decoder.

    Args:
        decoder: a LlamaConfig.
        tower: hidden, intermediate, layers and heads of the vision tower.
        tokenizer: with the tokens around images.
    """
    text = decoder.to_dict() | {"vocab_size": len(tokenizer), "tie_word_embeddings": True}
    for name in ("_name_or_path", "architectures", "dtype", "transformers_version"):
        text.pop(name, None)
    vision = {
        "hidden_size": tower["hidden"],
        "intermediate_size": tower["intermediate"],
        "num_hidden_layers": tower["layers"],
        "num_attention_heads": tower["heads"],
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    return Idefics3Config(
        text_config=text,
        vision_config=vision,
        scale_factor=MERGE,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        tie_word_embeddings=True,
        bos_token_id=decoder.bos_token_id,
        eos_token_id=decoder.eos_token_id,
        pad_token_id=decoder.pad_token_id,
    )


@torch.no_grad()
def build_model(
    decoder: Path, tower: dict[str, int], processor: Any, seed: int
) -> Idefics3ForConditionalGeneration:
    """Build the model in float32: the decoder's weights, and a tower and connector drawn by a seed.

    New tokens get the mean embedding: their logit is the mean of all, so that none is generated.
    Visual tokens start with the deviation of embeddings.
    """
    source = LlamaForCausalLM.from_pretrained(decoder, dtype=torch.float32)
    torch.manual_seed(seed)
    config = build_config(source.config, tower, processor.tokenizer)
    model = Idefics3ForConditionalGeneration(config)
    initialise(model.model.vision_model)
    initialise(model.model.connector)
    old = source.model.embed_tokens.weight
    model.model.connector.modality_projection.proj.weight.mul_(old.std())
    embeddings = old.mean(0).expand(len(processor.tokenizer), -1).clone()
    embeddings[: len(old)] = old
    weights = source.model.state_dict() | {"embed_tokens.weight": embeddings}
    model.model.text_model.load_state_dict(weights)
    model.tie_weights()
    ids = {name: getattr(source.config, name) for name in ("bos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(
        **ids, eos_token_id=source.config.eos_token_id, max_new_tokens=16, do_sample=False
    )
    return model.eval()
