"""Parts of tiny models with images: towers, ids of tokens, and what processors make of a picture.

Pictures are 16 pixels wide unless a tower needs more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from family_decoders import Config

from interlace.model.chat import Inputs

IMAGE = 90  # the token that stands for a picture


@dataclass(frozen=True)
class Tiny:
    """A tiny model.

    Attributes:
        config: the contents of config.json.
        pixels: what the processor would make of the picture; empty: a family without images.
        image_tokens: how many tokens the picture takes.
        types: inputs that tell these tokens from text.
    """

    config: Config
    pixels: Inputs
    image_tokens: int = 4
    types: tuple[str, ...] = ()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def square(*leading: int) -> Inputs:
    """A picture as an array of pixels."""
    return {"pixel_values": noise(*leading, 3, 16, 16)}


def sized(*leading: int) -> Inputs:
    """A picture as an array of pixels, and its height and width."""
    return square(*leading) | {"image_sizes": torch.tensor([[16, 16]])}


def patches(*shape: int) -> Inputs:
    """A picture as rows of patches, and their number in time, height and width."""
    return {"pixel_values": noise(*shape), "image_grid_thw": torch.tensor([[1, 4, 4]])}


INDEX = {"image_token_index": IMAGE}
PINPOINTS = INDEX | {"image_grid_pinpoints": [[16, 16]]}
QWEN_IDS = {"video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
GLM_IDS = {"video_token_id": 91, "image_start_token_id": 92, "image_end_token_id": 93}
QWEN_TOWER = {
    "depth": 3,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "out_hidden_size": 32,
}
QWEN3_TOWER = QWEN_TOWER | {"num_position_embeddings": 16}
QWEN2_TOWER = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
QWEN2_TOWER |= {"patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2}
QWEN2_5_TOWER = QWEN_TOWER | {"window_size": 16, "fullatt_block_indexes": [1]}
FLAT_PATCHES = patches(16, 96)


def tower(model_type: str, **extra: Any) -> Config:
    return {
        "model_type": model_type,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    } | extra


def siglip(**extra: Any) -> Config:
    return tower("siglip_vision_model", vision_use_head=False, **extra)


def whole(model_type: str, text: Config, vision: Config, **extra: Any) -> Config:
    ids = {"image_token_id": IMAGE, "tie_word_embeddings": text["tie_word_embeddings"]}
    return {"model_type": model_type, "text_config": text, "vision_config": vision} | ids | extra


def qwen(model_type: str, text: Config, vision: Config, ids: Config = QWEN_IDS) -> Tiny:
    return Tiny(whole(model_type, text, vision, **ids), FLAT_PATCHES, types=("mm_token_type_ids",))
