"""Open a checkpoint: its processor, and its model for inference."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from interlace.errors import InputError, complaint
from interlace.model.attention import chosen_attention
from interlace.model.families import takes_images
from interlace.model.files import weight_files
from interlace.model.linear_attention import check_kernels
from interlace.model.text import TextProcessor

# Image processors whose `size` bounds the area; others bound edges, if anything.
BOUND_BY_AREA = (
    *("Qwen2VL", "Glm4v", "Glm46V", "Glmga"),
    *("Cosmos3Edge", "Ernie4_5_VLMoe", "PaddleOCRVL", "VideoLlama3"),
)


def open_processor(
    model: Path | str,
    *,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Open the processor beside a checkpoint, with bounds on an image's area in pixels.

    A family without images has a tokenizer in its place, and nothing to bound.

    Raises:
        InputError: it cannot be opened, has no chat template, or its images have no such bound.
    """
    try:
        with_images = takes_images(_model_type(model))
        options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        processor = _with_images(model, options) if with_images else _tokenizer(model, options)
    except InputError:
        raise
    except Exception as error:  # ImportError of a family's package; tokenizers raises Exception
        raise InputError(
            f"{model}: the processor cannot be opened: {complaint(error)}; copy its files again, or"
            " install the package that it names"
        ) from None
    if processor.chat_template is None:
        raise InputError(
            f"{model}: the processor has no chat template; put a chat_template.jinja beside it, or"
            " choose a checkpoint that was tuned on conversations"
        )
    if with_images:
        _bound_area(model, processor, min_pixels, max_pixels)
    return processor


def _model_type(model: Path | str) -> str:
    """Return the family of a folder or of a repository on the hub."""
    from transformers import PreTrainedConfig

    return str(PreTrainedConfig.get_config_dict(str(model))[0].get("model_type"))


def auto_model(model: Path | str) -> Any:
    """Return the class of transformers that opens a checkpoint's family."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    with_images = takes_images(_model_type(model))
    return AutoModelForImageTextToText if with_images else AutoModelForCausalLM


def _tokenizer(model: Path | str, options: dict[str, Any]) -> TextProcessor:
    from transformers import AutoTokenizer

    return TextProcessor(AutoTokenizer.from_pretrained(str(model), **options))


def _with_images(model: Path | str, options: dict[str, Any]) -> Any:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(str(model), **options)
    if not hasattr(processor, "image_processor"):
        raise InputError(
            f"{model}: the processor is a {type(processor).__name__} and takes no images; copy the"
            " processor's files again"
        )
    return processor


def _bound_area(
    model: Path | str, processor: Any, min_pixels: int | None, max_pixels: int | None
) -> None:
    bounds = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    bounds = {edge: bound for edge, bound in bounds.items() if bound is not None}
    if bounds:
        image_processor = processor.image_processor
        if not type(image_processor).__name__.startswith(BOUND_BY_AREA):
            raise InputError(
                f"{model}: {type(image_processor).__name__} has no bound on the area of an image;"
                " leave min_pixels and max_pixels empty"
            )
        size = image_processor.size
        image_processor.size = type(size)(**(dict(size) | bounds))


def open_model(
    folder: Path | str,
    *,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    device_map: str = "none",
    attn_implementation: str | None = None,
) -> Any:
    """Open a checkpoint for inference on this process's GPU, or on the CPU.

    Args:
        folder: a stock Hugging Face checkpoint.
        dtype: float32, bfloat16 or float16; auto: bfloat16 on a GPU, float32 on a CPU.
        trust_remote_code: let the model's own code run.
        device_map: none: on one device; auto: over all GPUs, for a model that one cannot hold.
        attn_implementation: see `attention.chosen_attention`.

    Raises:
        InputError: the checkpoint lacks weights, which transformers would draw at random, or holds
            some in other shapes or outside of its folder; transformers refuses its configuration;
            several processes would each spread the model; or an attention is not usable.
    """
    on_gpu = torch.cuda.is_available()
    if dtype == "auto":
        dtype = "bfloat16" if on_gpu else "float32"
    check_device_map(device_map)
    options = {
        "dtype": getattr(torch, dtype),
        "device_map": None if device_map == "none" else device_map,
        "attn_implementation": attention(
            folder, attn_implementation, dtype, trust_remote_code=trust_remote_code
        ),
    }
    try:
        model = _loaded(folder, trust_remote_code=trust_remote_code, **options)
    except InputError:
        raise
    except Exception:
        check_opens(Path(folder), trust_remote_code=trust_remote_code)  # the files are at fault
        raise
    if device_map == "none":
        model = model.to(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else "cpu")
    check_kernels(model)
    return model.eval()


def _loaded(folder: Path | str, **options: Any) -> Any:
    """Load a model from the files that `weight_files` names, all of its weights from them."""
    if os.path.isdir(folder):
        weight_files(Path(folder))
    try:
        model, loading = auto_model(folder).from_pretrained(
            str(folder),
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
            **options,
        )
    except SafetensorError as error:  # one of several files: the message names none
        raise InputError(
            f"{folder}: a file of weights is damaged: {complaint(error)}; copy them again"
        ) from None
    if mismatched := sorted(loading["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise InputError(
            f"{folder}: {name} is stored as {list(stored)}, and config.json makes it"
            f" {list(expected)}, {len(mismatched)} of that kind in all; copy both again"
        )
    if missing := sorted(loading["missing_keys"]):
        tie = "set tie_word_embeddings to true in config.json if the embedding is the head, or "
        raise InputError(
            f"{folder}: the weights lack {missing[0]}, {len(missing)} in all;"
            f" {tie if missing == ['lm_head.weight'] else ''}copy them again"
        )
    return model


def check_opens(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Check that transformers opens a model; return it, on torch's meta device: no weight is read.

    Raises:
        InputError: names the folder, and what transformers says.
    """
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return _loaded(folder, device_map="meta", trust_remote_code=trust_remote_code)
    except InputError:
        raise
    except Exception as error:  # whatever a model's class raises over its configuration
        raise InputError(
            f"{folder}: transformers cannot open this model: {complaint(error)}; copy it again"
        ) from None
    finally:
        if bars:
            logging.enable_progress_bar()


def end_tokens(generation_config: Any, tokenizer: Any) -> list[Any]:
    """Return the ids of the tokens that end an answer, as a model's files name them."""
    ends = generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    return [token for token in (ends if isinstance(ends, list) else [ends]) if token is not None]


def check_device_map(device_map: str) -> None:
    """Refuse to spread a model over all GPUs more than once, or without accelerate.

    Raises:
        InputError: names the parameters to change.
    """
    if device_map == "none":
        return
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise InputError(
            f"device_map = {device_map}: each of {processes} processes would take all GPUs; set"
            " launch to python -m, or device_map to none"
        )
    if importlib.util.find_spec("accelerate") is None:
        raise InputError(f"device_map = {device_map}: needs the package accelerate; install it")


def attention(
    folder: Path | str, requested: str | None, dtype: str, *, trust_remote_code: bool = False
) -> str | None:
    """Choose a checkpoint's attention implementation; see `attention.chosen_attention`."""

    def build(name: str) -> nn.Module:
        from transformers import AutoConfig

        options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(str(folder), **options)
        options |= {"attn_implementation": name, "dtype": getattr(torch, dtype)}
        with torch.device("meta"):
            model: nn.Module = auto_model(folder).from_config(config, **options)
        return model

    return chosen_attention(requested, dtype, model_type=_model_type(folder), build=build)


def input_device(model: Any) -> Any:
    """Return the device of a model's first weights, where it takes its inputs."""
    return next(device for p in model.parameters() if (device := p.device).type != "meta")
