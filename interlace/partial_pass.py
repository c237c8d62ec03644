"""Run a model only as far as a layer of its decoder: what lies behind is not computed.

The model's own forward pass runs, so that masks, position embeddings and visual features are those
of the model, whatever its family.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from interlace.answer_loss import norm_and_head
from interlace.chat import Inputs
from interlace.errors import ContractError
from interlace.families import decoder_layers
from interlace.states import forward


class _ReachedError(Exception):
    def __init__(self, state: Tensor) -> None:
        self.state = state


def following(model: nn.Module, layer: int) -> nn.Module:
    """What takes the state behind a layer: the next layer, or behind the last the final norm."""
    layers = decoder_layers(model)
    return layers[layer + 1] if layer + 1 < len(layers) else norm_and_head(model)[0]


def state_before(model: nn.Module, batch: Inputs, module: nn.Module) -> Tensor:
    """Run a model up to one of its modules.

    Args:
        model: its hooks and weights count, e.g. those of layers in front of the module.
        batch: inputs, per token [B, T]; labels are left out.
        module: a decoder layer or the final norm.

    Returns:
        The module's true input, [B, T, d].

    Raises:
        ContractError: the model's forward pass does not call the module.
    """

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _ReachedError(args[0] if args else kwargs["hidden_states"])

    handle = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        forward(model, batch)
    except _ReachedError as reached:
        return reached.state
    finally:
        handle.remove()
    raise ContractError(f"{type(model).__name__} does not call its {type(module).__name__}")
