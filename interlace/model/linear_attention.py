"""Linear attention in packed rows: each sample starts from an empty state.

The gated delta rule of Qwen3.5 (arXiv 2412.06464) carries a state from token to token, and a short
convolution before it reads the tokens before. Position ids do not reach either. The kernels of
flash-linear-attention and causal-conv1d take the samples' boundaries. Without them transformers
computes in torch, where boundaries are ignored or refused: there each sample becomes a row of its
own inside of these layers alone, and attention and MLPs stay packed.

Shapes: R rows of C tokens, S samples of at most T tokens, d the decoder's width.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from interlace.errors import InputError
from interlace.model.decoder import decoder_layers
from interlace.printable import say
from interlace.system.distributed import process_rank

NAME = "linear_attn"  # of these parts of decoder layers
RULE, CONVOLUTION = "fla.ops.gated_delta_rule", "causal_conv1d"  # modules that transformers imports


def linear_attentions(model: nn.Module) -> list[nn.Module]:
    """Return the parts of a model's decoder layers that are linear attention."""
    modules = (getattr(layer, NAME, None) for layer in decoder_layers(model))
    return [module for module in modules if module is not None]


def check_kernels(model: nn.Module) -> None:
    """Warn of linear attention that runs slowly here, and refuse it where it cannot run.

    Raises:
        InputError: flash-linear-attention is installed and there is no GPU: transformers calls it
            all the same.
    """
    if not linear_attentions(model):
        return
    on_gpu, installed = torch.cuda.is_available(), _imports(RULE)
    if installed and not on_gpu:
        raise InputError(
            f"{type(model).__name__}: flash-linear-attention is installed, which needs a GPU, and"
            " there is none; uninstall flash-linear-attention and fla-core, or use a GPU"
        )
    if on_gpu and not installed and process_rank() == 0:
        say(
            f"{type(model).__name__}: linear attention without flash-linear-attention is slow;"
            " pip install 'interlace-vlm[linear-attention]'",
            error=True,
        )


def separate_samples(model: nn.Module) -> nn.Module:
    """Let a model's linear attention keep the samples of packed rows apart; return the model.

    Its decoder then takes boundaries from the position ids. Rows that are not packed, and models
    without linear attention, are computed as before.
    """
    modules = linear_attentions(model)
    if not modules:
        return model
    kernels = _imports(RULE) and _imports(CONVOLUTION)
    for module in modules:
        module.forward = _Separated(module, kernels)  # type: ignore[method-assign]
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    # not an input of the model: its vision tower would take these boundaries for those of images
    decoder.forward = partial(_with_boundaries, decoder.forward)
    return model


def boundaries(positions: Tensor) -> Tensor:
    """Return where samples begin in rows laid end to end, and the end of the last, [S + 1] int32.

    Args:
        positions: in the text, [R, C]; each sample counts from 0.
    """
    flat = positions.reshape(-1)  # [R * C]
    ends = torch.cat([torch.nonzero(flat == 0)[:, 0], flat.new_tensor([len(flat)])])
    return ends.to(torch.int32)


def _with_boundaries(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Add the boundaries of samples to a decoder's arguments, where its rows are packed."""
    positions, mask = kwargs.get("position_ids"), kwargs.get("attention_mask")
    if positions is not None and mask is None and kwargs.get("past_key_values") is None:
        kwargs["cu_seq_lens_q"] = boundaries(_text_axis(positions))
    return forward(*args, **kwargs)


def _text_axis(positions: Tensor) -> Tensor:
    """Return positions in the text, [R, C], of [R, C] or of [4, R, C]."""
    return positions if positions.ndim == 2 else positions[0]


class _Separated:
    """The forward pass of a part that is linear attention, sample by sample."""

    def __init__(self, module: nn.Module, kernels: bool) -> None:
        self.forward, self.kernels = module.forward, kernels

    def __call__(
        self, hidden_states: Tensor, cu_seq_lens_q: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Compute [R, C, d] of [R, C, d].

        Args:
            hidden_states: the layer's normed input.
            cu_seq_lens_q: see `boundaries`; `None`: each row is a sample.
            kwargs: further arguments of the part.
        """
        if cu_seq_lens_q is None:
            return self._of(hidden_states, **kwargs)
        if self.kernels and len(hidden_states) == 1:  # the kernels take one row
            samples = torch.repeat_interleave(cu_seq_lens_q.diff())  # [C], 0 0 0 1 1 ...
            numbers = samples[None].to(torch.int32)
            return self._of(hidden_states, cu_seq_lens_q=cu_seq_lens_q, seq_idx=numbers, **kwargs)
        lengths = cu_seq_lens_q.diff().tolist()
        states = torch.split(hidden_states.flatten(0, 1), lengths)  # S x [T_s, d]
        padded = nn.utils.rnn.pad_sequence(list(states), batch_first=True)  # [S, T, d]
        output = self._of(padded, **kwargs)
        rows = [row[:length] for row, length in zip(output, lengths, strict=True)]
        return torch.cat(rows).view_as(hidden_states)

    def _of(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        output: Tensor = self.forward(hidden_states=hidden_states, **kwargs)
        return output


def _imports(module: str) -> bool:
    """Return True if a module can be imported, as transformers tries it."""
    try:
        importlib.import_module(module)
    except Exception:  # a missing package of its own, or a driver
        return False
    return True
