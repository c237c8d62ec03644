"""Stand-ins for packages of attention kernels: a folder with a package and its metadata.

They prove which package is chosen, and that samples stay apart by the arguments that a real kernel
takes. They prove nothing about the real kernels: theirs run on a GPU alone, see the tests marked
gpu. Names, modules and metadata are those of the real wheels (flash-attn 2.8.3, flash-attn-3 3.0,
flash-attn-4 4.0.0b36, flash-linear-attention and fla-core 0.6.0, causal-conv1d 1.7.0, kernels).
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils.import_utils import KERNELS_MIN_VERSION

ATTENTION = """
import torch

CALLS = []

def attend(q, k, v, causal, softmax_scale, window_size, softcap):
    repeats, t, s = q.shape[2] // k.shape[2], q.shape[1], k.shape[1]
    k, v = (x.repeat_interleave(repeats, 2) for x in (k, v))
    scores = torch.einsum("bthd,bshd->bhts", q, k) * (softmax_scale or q.shape[-1] ** -0.5)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    lag = torch.arange(t)[:, None] + s - t - torch.arange(s)
    seen = lag >= 0 if causal else torch.ones(t, s, dtype=torch.bool)
    if window_size[0] >= 0:
        seen = seen & (lag <= window_size[0])
    weights = scores.masked_fill(~seen, float("-inf")).float().softmax(-1).to(v.dtype)
    return torch.einsum("bhts,bshd->bthd", weights, v)

def flash_attn_func(q, k, v, causal=False, softmax_scale=None, window_size=(-1, -1), softcap=0.0):
    CALLS.append("func")
    return attend(q, k, v, causal, softmax_scale, window_size, softcap)

def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
                           causal=False, softmax_scale=None, window_size=(-1, -1), softcap=0.0):
    CALLS.append("varlen")
    options = causal, softmax_scale, window_size, softcap
    rows, columns = (x.tolist() for x in (cu_seqlens_q, cu_seqlens_k))
    ends = zip(rows[:-1], rows[1:], columns[:-1], columns[1:])
    return torch.cat([
        attend(q[None, a:b], k[None, c:d], v[None, c:d], *options)[0] for a, b, c, d in ends
    ])

def flash_attn_with_kvcache(*args, **kwargs):
    raise NotImplementedError
"""
PADDING = """
from transformers.modeling_flash_attention_utils import _pad_input as pad_input
from transformers.modeling_flash_attention_utils import _unpad_input as unpad_input
"""
DELTA_RULE = """
import torch
from transformers.models.qwen3_5 import modeling_qwen3_5 as qwen

CALLS = []

def chunk_gated_delta_rule(q, k, v, g, beta, scale=None, initial_state=None,
                           output_final_state=False, use_qk_l2norm_in_kernel=False,
                           cu_seqlens=None, **kwargs):
    CALLS.append(None if cu_seqlens is None else cu_seqlens.tolist())
    rule = qwen.torch_chunk_gated_delta_rule
    while hasattr(rule, "__wrapped__"):
        rule = rule.__wrapped__
    options = dict(use_qk_l2norm_in_kernel=use_qk_l2norm_in_kernel)
    if cu_seqlens is None:
        return rule(q, k, v, g=g, beta=beta, **options)
    assert q.shape[0] == 1  # as the real one demands
    ends = cu_seqlens.tolist()
    pieces = [
        rule(*(x[:, a:b] for x in (q, k, v)), g=g[:, a:b], beta=beta[:, a:b], **options)[0]
        for a, b in zip(ends[:-1], ends[1:])
    ]
    return torch.cat(pieces, dim=1), None

def fused_recurrent_gated_delta_rule(*args, **kwargs):
    raise NotImplementedError
"""
CONVOLUTION = """
import torch
from torch.nn import functional as F

CALLS = []

def causal_conv1d_fn(x, weight, bias=None, seq_idx=None, activation=None, **kwargs):
    CALLS.append(seq_idx is not None)
    width, length = weight.shape[-1], x.shape[-1]
    out = torch.zeros_like(x)
    for lag in range(width):
        shifted = F.pad(x, (lag, 0))[..., :length]
        if seq_idx is not None:
            same = F.pad(seq_idx, (lag, 0), value=-1)[..., :length] == seq_idx
            shifted = shifted * same[:, None]
        out = out + shifted * weight[None, :, width - 1 - lag, None]
    out = out if bias is None else out + bias[None, :, None]
    return F.silu(out) if activation in ("silu", "swish") else out

def causal_conv1d_update(*args, **kwargs):
    raise NotImplementedError
"""
KERNELS = """
def get_kernel(*args, **kwargs):
    raise OSError("no network")
"""
PACKAGES: dict[str, dict[str, str]] = {
    "flash-attn 2.8.3": {
        "flash_attn/__init__.py": ATTENTION,
        "flash_attn/bert_padding.py": PADDING,
    },
    "flash-attn 2.1.0": {"flash_attn/__init__.py": ATTENTION},
    "flash-attn-3 3.0.0": {"flash_attn_interface.py": ATTENTION},
    "flash-attn-4 4.0.0b36": {"flash_attn/cute/__init__.py": ATTENTION},
    "fla-core 0.6.0": {
        "fla/__init__.py": "__version__ = '0.6.0'\n",
        "fla/ops/__init__.py": "",
        "fla/ops/gated_delta_rule.py": DELTA_RULE,
    },
    "causal-conv1d 1.7.0": {"causal_conv1d/__init__.py": CONVOLUTION},
    f"kernels {KERNELS_MIN_VERSION}": {"kernels/__init__.py": KERNELS},
}
MODULES = ("flash_attn", "flash_attn_interface", "fla", "causal_conv1d", "kernels")


def write(folder: Path, *packages: str) -> Path:
    """Write packages and their metadata into a folder, which may be put on `sys.path`."""
    for package in packages:
        name, version = package.split()
        files = PACKAGES[package]
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        top = {path.split("/")[0].removesuffix(".py") for path in files}
        (info / "top_level.txt").write_text("\n".join(top))
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    return folder


@contextmanager
def installed(
    folder: Path, *packages: str, capability: tuple[int, int] | None = None
) -> Iterator[None]:
    """Put packages on `sys.path`, as on a machine with such a GPU; `None`: without one."""
    import torch

    seen, device = torch.cuda.is_available, torch.cuda.get_device_capability
    write(folder, *packages)
    sys.path.insert(0, str(folder))
    cuda: Any = torch.cuda
    try:
        if capability:
            cuda.is_available, cuda.get_device_capability = lambda: True, lambda *_: capability
        _forget()
        yield
    finally:
        sys.path.remove(str(folder))
        cuda.is_available, cuda.get_device_capability = seen, device
        _forget()


def on_cpu(folder: Path, implementation: str | None) -> Any:
    """Open a model on the CPU, where `open_model` would look for a GPU."""
    import torch

    from interlace.model.open import auto_model

    options = {"attn_implementation": implementation, "dtype": torch.float32}
    return auto_model(folder).from_pretrained(folder, **options).eval()


def _forget() -> None:
    """Let transformers look for packages anew."""
    from transformers import modeling_flash_attention_utils
    from transformers.utils import import_utils

    importlib.invalidate_caches()
    for value in vars(import_utils).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
    if distributions := getattr(import_utils, "PACKAGE_DISTRIBUTION_MAPPING", None):
        distributions.clear()  # transformers until 5.19 keeps these from its import on
        distributions.update(importlib.metadata.packages_distributions())
    for name in [name for name in sys.modules if name.split(".")[0] in MODULES]:
        del sys.modules[name]
    modeling_flash_attention_utils._loaded_implementation = None
