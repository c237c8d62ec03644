"""A Qwen3-VL with random weights and samples of realistic length, for timing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from interlace.model.open import open_processor

DEMO = Path("data/demo/model")  # its processor and small vision tower are used
VOCABULARY = 151_936
SHORTEST, LONGEST = 200, 800  # tokens a sample
SIDE = 160  # pixels of an image: 100 tokens in the demo's processor
WORDS = "what where is the red blue bar circle square number of shapes left above and digit".split()  # noqa: SIM905


def random_qwen3_vl(folder: Path, layers: int = 28, width: int = 512) -> Any:
    """Save a model of random weights with Qwen's vocabulary; returns its processor.

    Args:
        folder: where to save it.
        layers: of the decoder.
        width: of the decoder; 8 heads, 4 key-value heads, an MLP of three times the width.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(DEMO)
    text = {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": width // 8,
        "vocab_size": VOCABULARY,
    }
    config.text_config.update(text)
    half = width // 16  # rotary frequencies per head, split over time, height and width
    config.text_config.rope_parameters["mrope_section"] = [
        half - 2 * (half // 3),
        half // 3,
        half // 3,
    ]
    config.vision_config.out_hidden_size = width
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    processor = open_processor(DEMO, max_pixels=SIDE * SIDE)
    processor.save_pretrained(folder)
    return processor


TEXT = {  # Qwen3-VL-Instruct: hidden, intermediate, layers, heads, tied embeddings
    "tiny": (64, 96, 8, 8, True),
    "2B": (2048, 6144, 28, 16, True),
    "4B": (2560, 9728, 36, 32, True),
    "8B": (4096, 12_288, 36, 32, False),
}
VISION = {  # hidden, intermediate, depth, taps of DeepStack
    "tiny": (64, 96, 2, [0]),
    "2B": (1024, 4096, 24, [5, 11, 17]),
    "4B": (1024, 4096, 24, [5, 11, 17]),
    "8B": (1152, 4304, 27, [8, 16, 24]),
}
AREA = (65_536, 16_777_216)  # pixels of an image in Qwen3-VL's processor


def text_sizes(size: str) -> dict[str, Any]:
    """Return the settings of a published decoder, by their names in its configuration.

    Args:
        size: 2B, 4B or 8B; tiny: to try a program.
    """
    width, inner, layers, heads, tied = TEXT[size]
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": VOCABULARY if size != "tiny" else 2048,
        "max_position_embeddings": 262_144,
        "tie_word_embeddings": tied,
    }


def random_decoder_of(
    size: str, device: str, dtype: torch.dtype, attention: str | None = None
) -> Any:
    """Build Qwen3-VL with the decoder of a published size and the demo's small vision tower.

    Args:
        size: 2B, 4B, 8B or tiny.
        device: cuda or cpu.
        dtype: of the weights.
        attention: implementation; `None`: the model's own choice.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(DEMO)
    config.text_config.update(text_sizes(size))
    config.text_config.rope_parameters["mrope_section"] = [24, 20, 20]
    config.tie_word_embeddings = config.text_config.tie_word_embeddings
    config.vision_config.out_hidden_size = config.text_config.hidden_size
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(
            config, dtype=dtype, attn_implementation=attention
        )
    return model.eval()


def random_qwen3_vl_of(size: str, device: str, dtype: torch.dtype, **sizes: int) -> tuple[Any, Any]:
    """Build Qwen3-VL of a published size with random weights on a device, and its processor.

    The processor makes as many image tokens as Qwen's: patches of 16 pixels, merged 2 by 2. Its
    tokenizer is the demo's, so text lengths are not Qwen's.

    Args:
        size: 2B, 4B, 8B or tiny.
        device: cuda or cpu.
        dtype: of the weights.
        sizes: of the decoder, in place of the published ones.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    vision_width, vision_inner, depth, taps = VISION[size]
    config = AutoConfig.from_pretrained(DEMO)
    config.text_config.update(text_sizes(size) | sizes)
    config.text_config.rope_parameters["mrope_section"] = [24, 20, 20]
    config.tie_word_embeddings = config.text_config.tie_word_embeddings
    vision = {
        "hidden_size": vision_width,
        "intermediate_size": vision_inner,
        "depth": depth,
        "num_heads": 16,
        "patch_size": 16,
        "out_hidden_size": config.text_config.hidden_size,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": taps,
    }
    config.vision_config.update(vision)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    processor = open_processor(DEMO, min_pixels=AREA[0], max_pixels=AREA[1])
    processor.image_processor.patch_size = 16
    return model.eval(), processor


def long_rows(
    count: int, seed: int = 0, shortest: int = SHORTEST, longest: int = LONGEST
) -> list[dict[str, Any]]:
    """Build rows of one image and a question.

    Args:
        count: rows.
        seed: of the draw.
        shortest: tokens of a row, at least 116.
        longest: tokens of a row, exclusive.
    """
    rng = np.random.default_rng(seed)
    processor = open_processor(DEMO, max_pixels=SIDE * SIDE)
    rows = []
    for number in range(count):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        n_tokens = int(rng.integers(shortest, longest)) - 115  # the image and the template
        words = rng.choice(WORDS, size=2 * n_tokens).tolist()
        ids = processor.tokenizer(" ".join(words))["input_ids"][:n_tokens]
        rows.append(
            {
                "images": [{"bytes": file.getvalue(), "path": None}],
                "texts": [{"user": processor.tokenizer.decode(ids), "assistant": "1"}],
                "source": "random",
                "sample_id": f"{number:016x}",
                "domain": "native",
                "task": "native",
            }
        )
    return rows
