"""DeepSpeed's processes and its configuration."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from interlace.errors import InputError
from interlace.params.healing import Recipe
from interlace.printable import say
from interlace.system.distributed import device, meet, process_rank, world_size


def join(params: Recipe) -> None:
    """Join the other processes; DeepSpeed needs a process group even for a single one.

    Raises:
        InputError: `finetune.zero_stage` needs DeepSpeed, which is not installed.
    """
    meet()
    if params.zero_stage:
        _check_installed()
        import deepspeed

        _set_single_process_address()
        _announce_compilation()
        if torch.cuda.is_available():
            torch.cuda.set_device(device())
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        deepspeed.init_distributed(backend, verbose=False)


def _check_installed() -> None:
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed  # noqa: F401
    except ImportError:
        raise InputError(
            "finetune.zero_stage needs DeepSpeed, which is not installed; install it (Linux) or set"
            " finetune.zero_stage to 0"
        ) from None


def _announce_compilation() -> None:
    """Let DeepSpeed say when it compiles an extension, the first time that a machine needs it."""
    from deepspeed.ops.op_builder.builder import OpBuilder
    from torch.utils.cpp_extension import get_default_build_root

    load = OpBuilder.jit_load
    if hasattr(load, "__wrapped__"):
        return

    @functools.wraps(load)
    def load_and_say(builder: Any, verbose: bool = True) -> Any:
        root = os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root()
        if process_rank() == 0 and not any(Path(root).rglob(f"{builder.name}.so")):
            say(f"finetune: DeepSpeed compiles {builder.name}, once: about a minute", error=True)
        return load(builder, verbose)

    OpBuilder.jit_load = load_and_say


def _set_single_process_address() -> None:
    """Set the environment that a launcher sets, for one process, unless there was a launcher."""
    if "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"} | address)


def zero_config(params: Recipe, dtype: torch.dtype, passes: int) -> dict[str, Any]:
    """Return DeepSpeed's configuration: the published recipe's, with the offload of `params`.

    Args:
        params: the recipe.
        dtype: of the model's weights.
        passes: forward passes per update of each process.
    """
    zero: dict[str, Any] = {
        "stage": params.zero_stage,
        "overlap_comm": True,
        "contiguous_gradients": True,
    }
    host = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if params.offload != "none":
        zero["offload_optimizer"] = host
    if params.offload == "all":
        zero["offload_param"] = host
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype is torch.bfloat16},
        "gradient_clipping": params.max_grad_norm,
        "train_micro_batch_size_per_gpu": 1,  # one packed batch
        "gradient_accumulation_steps": passes,
        "train_batch_size": passes * world_size(),
    }


@contextmanager
def partitioned_loading(config: dict[str, Any]) -> Iterator[None]:
    """Let transformers partition the weights of models it opens in the block, under ZeRO-3."""
    if config["zero_optimization"]["stage"] != 3:
        yield
        return
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    reference = HfDeepSpeedConfig(config)  # transformers holds it weakly
    try:
        yield
    finally:
        del reference
        unset_hf_deepspeed_config()
