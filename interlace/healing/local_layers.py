"""The tuned layers of local healing, segment by segment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.layers import StoredLayers
from interlace.healing.local_targets import SegmentTarget, segment_targets
from interlace.model.decoder import decoder_layers
from interlace.model.open import auto_model
from interlace.model.rules import FAMILIES
from interlace.params.healing import Finetune
from interlace.plan.record import Plan


@dataclass
class LocalSegment:
    """The tuned layers of a segment in float32, in depth order, and their optimizer."""

    target: SegmentTarget
    layers: nn.ModuleList
    optimizer: torch.optim.AdamW

    @property
    def name(self) -> str:
        """The dense layers that learn, such as 3 or 3+4."""
        return "+".join(map(str, self.target.segment.survivors))

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the weights of all its layers by name."""
        return dict(self.layers.named_parameters())


def open_segments(
    pruned: Checkpoint, model: Any, plan: Plan, params: Finetune
) -> list[LocalSegment]:
    """Open the tuned layers of each segment in float32.

    Args:
        pruned: the checkpoint to start from.
        model: the dense model, on the device to train on.
        plan: which layers were dropped and are tuned.
        params: of `finetune`.
    """
    by_position = not FAMILIES[model.config.model_type].entries
    start = auto_model(pruned.folder).from_pretrained(
        pruned.folder,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=pruned.trust_remote_code,
        attn_implementation=model.config._attn_implementation,  # the recorded masks are for it
    )  # all its other weights are freed when this function returns
    device = next(model.parameters()).device
    opened = []
    for target in segment_targets(plan, by_position):
        layers = nn.ModuleList(decoder_layers(start)[position] for position in target.positions)
        layers.to(device).eval().requires_grad_(True)
        optimizer = torch.optim.AdamW(
            layers.parameters(),
            lr=params.local_learning_rate,
            weight_decay=params.weight_decay,
            foreach=False,
        )
        opened.append(LocalSegment(target, layers, optimizer))
    return opened


def stored_weights(
    segments: Sequence[LocalSegment], stored: StoredLayers
) -> Iterator[tuple[str, Tensor]]:
    """Yield all weights by the names they are stored under.

    Args:
        segments: of local healing.
        stored: the checkpoint's layers.
    """
    for segment in segments:
        for position, layer in zip(segment.target.positions, segment.layers, strict=True):
            for name, weight in layer.named_parameters():
                yield stored.name(position, name), weight.detach().cpu()
