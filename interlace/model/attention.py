"""The choice of an attention implementation: by the machine, its packages, and the family.

Implementations go by transformers' names, and its own checks find them. The module `flash_attn`
proves nothing: FlashAttention 4 provides it too, as `flash_attn.cute`, so the checks ask for the
package that a module came with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from interlace.errors import InputError, complaint
from interlace.printable import say
from interlace.system.distributed import process_rank

HALF = ("bfloat16", "float16")
PACKAGES = {  # in the order in which `auto` tries them: the longest in use first
    "flash_attention_2": "flash-attn",
    "flash_attention_3": "flash-attn-3",
    "flash_attention_4": "flash-attn-4",
}
# Families whose prompts or images see the tokens that follow. The kernels know no such masks, and
# transformers drops them without a word: other answers, see tests/model/test_attention.py.
SEES_AHEAD = ("gemma3", "gemma4", "gemma4_unified", "molmo2", "paligemma")
PIXTRAL_SINCE = (5, 23)  # before, the tower of Pixtral has FlashAttention cut images into pieces


def chosen_attention(
    requested: str | None, dtype: str, *, model_type: str, build: Callable[[str], nn.Module]
) -> str | None:
    """Choose the attention implementation that a model is opened with.

    Args:
        requested: as transformers names it, or a repository of kernels on the hub; auto: the first
            FlashAttention that is usable; `None`: the model's own choice.
        dtype: of the weights.
        model_type: the family.
        build: makes the model without weights, with an implementation; transformers raises there
            what a class refuses, and imports the package.

    Returns:
        The implementation; `None`: the model's own choice, which is sdpa wherever the family has
        it.

    Raises:
        InputError: the requested implementation is not usable, with the reason.
    """
    if requested in (None, "eager"):
        return requested
    if requested == "auto":
        usable = (name for name in PACKAGES if _is_installed(name) and not _misfit(name, dtype))
        name = next(usable, None)
        if name and (reason := _refusal(name, model_type, build)):
            if process_rank() == 0:
                say(f"{model_type}: no {name}: {reason}", error=True)
            return None
        return name
    reason = _obstacle(requested, dtype) or _refusal(requested, model_type, build)
    if reason:
        raise InputError(
            f"attn_implementation = {requested} with dtype = {dtype}: {reason}; set"
            " attn_implementation to auto"
        )
    return requested


def takes_one_row(implementation: str | None) -> bool:
    """Return True for implementations that compute samples of differing length in one row."""
    return "flash" in (implementation or "")


def _obstacle(name: str, dtype: str) -> str | None:
    """Return the reason for which this machine cannot use an implementation."""
    if name == "sdpa":
        return None
    if misfit := _misfit(name, dtype):
        return misfit
    if _is_installed(name) or _has_kernels():  # transformers takes a kernel of the hub instead
        return None
    if name not in PACKAGES:
        return "needs the package kernels, in a version that transformers takes"
    if _matrix(name)["pkg_availability_check"]():
        return f"the installed {PACKAGES[name]} is too old"
    installed = [f"{PACKAGES[key]} is {key}" for key in PACKAGES if _is_installed(key)]
    return f"needs the package {PACKAGES[name]}" + (
        f" ({'; '.join(installed)})" if installed else ""
    )


def _misfit(name: str, dtype: str) -> str | None:
    """Return the reason for which the weights or the GPU do not suit an implementation."""
    if dtype not in HALF:
        return "needs bfloat16 or float16"
    if not torch.cuda.is_available():
        return "needs a GPU"
    least = _matrix(name).get("cuda_min_major_version", 8) if name in PACKAGES else 0
    capability = torch.cuda.get_device_capability()
    if capability[0] < least:
        return f"needs a GPU of compute capability {least}.0, and this one's is" + (
            " {}.{}".format(*capability)
        )
    return None


def _refusal(name: str, model_type: str, build: Callable[[str], nn.Module]) -> str | None:
    """Return the reason for which a family does not take an implementation."""
    if model_type in SEES_AHEAD and takes_one_row(name):
        return f"{model_type} lets tokens of a prompt see what follows, and this cannot"
    try:
        model = build(name)
    except Exception as error:  # ValueError of a class, ImportError of a package, OSError of a hub
        _forget_load()
        return complaint(error).split(". ")[0]
    if takes_one_row(name) and _has_pixtral_tower(model) and _version() < PIXTRAL_SINCE:
        return "the tower of Pixtral needs transformers 5.23 for this"
    return None


def _forget_load() -> None:
    """Have transformers try anew: until 5.22 it takes a package that failed to load for loaded."""
    from transformers import modeling_flash_attention_utils

    modeling_flash_attention_utils._loaded_implementation = None


def _has_pixtral_tower(model: nn.Module) -> bool:
    return any(type(module).__name__ == "PixtralVisionModel" for module in model.modules())


def _version() -> tuple[int, ...]:
    """Return the first two numbers of the version of transformers."""
    import transformers

    return tuple(int(number) for number in transformers.__version__.split(".")[:2])


def _is_installed(name: str) -> bool:
    return name in PACKAGES and bool(_matrix(name)["general_availability_check"]())


def _has_kernels() -> bool:
    from transformers.utils import is_kernels_available

    return bool(is_kernels_available())


def _matrix(name: str) -> dict[str, Any]:
    """Return what transformers knows about a version of FlashAttention."""
    from transformers import modeling_flash_attention_utils

    matrix = modeling_flash_attention_utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX
    facts: dict[str, Any] = matrix[int(name[-1])]
    return facts
