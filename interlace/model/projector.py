"""The projector of an opened model: the modules between its vision tower and its decoder."""

from __future__ import annotations

from typing import Any

from torch import nn

INSIDE = "merger"  # of the tower's modules: families whose tower holds its projector name it so


def projector_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the projector's weights by name; empty for a model without a vision tower.

    One rule for all families: weights beside the tower and the decoder (`multi_modal_projector`,
    `connector`, a learned line break), and the mergers inside of the tower, those of DeepStack too.
    """
    base: Any = model.base_model
    decoder, tower = base.get_decoder(), base.get_encoder("image")
    if tower is base or tower is decoder:
        return {}
    outside = {id(weight) for weight in (*decoder.parameters(), *tower.parameters())}
    for name, module in tower.named_children():
        if INSIDE in name:
            outside -= {id(weight) for weight in module.parameters()}
    prefix = next(name for name, module in model.named_modules() if module is base)
    return {
        name: weight
        for name, weight in model.named_parameters()
        if name.startswith(f"{prefix}.") and id(weight) not in outside
    }
