"""Tiny models with random weights, and rows to run them on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny_model
import torch
from drawn_rows import picture

SIZES = {
    "hidden": 32,
    "heads": 2,
    "kv_heads": 1,
    "intermediate": 48,
    "vision_hidden": 24,
    "vision_intermediate": 32,
    "vision_heads": 2,
}
WORDS = "What number is written in this image and the other one ? left right red".split()  # noqa: SIM905


def row(seed: int, *, images: int = 1, turns: int = 1, source: str = "made_up") -> dict[str, Any]:
    """A FineVision row of random words; its length depends on the seed."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(turns):
        question = " ".join(rng.choice(WORDS, size=int(rng.integers(2, 20))))
        texts.append({"user": question, "assistant": f"{rng.integers(0, 1000)}"})
    pictures = [{"bytes": picture(seed * 10 + i), "path": None} for i in range(images)]
    return {"images": pictures, "texts": texts, "source": source}


def rows(n: int, **kwargs: Any) -> list[dict[str, Any]]:
    """Rows with none, one and two images in turn."""
    return [row(seed, images=seed % 3, turns=1 + seed % 2, **kwargs) for seed in range(n)]


def weights_file(value: bytes = b"w") -> bytes:
    """The bytes of a safetensors file that holds one tensor of one byte."""
    header = b'{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    return len(header).to_bytes(8, "little") + header + value


def tiny_qwen3_vl(path: Path, layers: int = 4, seed: int = 0, **sizes: int) -> Path:
    """Save an untrained Qwen3-VL with DeepStack and its processor; returns the folder.

    Weights are larger than transformers draws them, so that every layer matters to the output.
    """
    tokenizer = tiny_model.build_tokenizer(WORDS + list("0123456789"), 300)
    model = tiny_model.build_model(SIZES | sizes | {"layers": layers}, tokenizer, seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(4.0)
            elif "norm" in name and name.endswith("weight"):
                weight.add_(0.2 * torch.randn(weight.shape))
    model.save_pretrained(path)
    tiny_model.build_processor(tokenizer).save_pretrained(path)
    return path


TEXT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


def tiny_llama(path: Path, layers: int = 4, seed: int = 0) -> Path:
    """Save an untrained Llama, which takes text alone, and its tokenizer; returns the folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_model.build_tokenizer(WORDS + list("0123456789"), 300)
    tokenizer.chat_template = TEXT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=SIZES["hidden"],
        intermediate_size=SIZES["intermediate"],
        num_attention_heads=SIZES["heads"],
        num_key_value_heads=SIZES["kv_heads"],
        num_hidden_layers=layers,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4.0)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def untied_qwen3_vl(path: Path, layers: int = 4) -> Path:
    """Save that model with a head of its own, as the 8B has it; returns the folder."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tied = tiny_qwen3_vl(path, layers)
    config = Qwen3VLConfig.from_pretrained(tied)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    model = Qwen3VLForConditionalGeneration.from_pretrained(tied, config=config)
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        model.lm_head.weight.copy_(embeddings + 0.1 * torch.randn(embeddings.shape))
    model.save_pretrained(path)
    return path
