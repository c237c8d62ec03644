"""Isolation of lmms-eval: no network, no files, no output, no lasting change to the process."""

from __future__ import annotations

import contextlib
import io
import os
import random
from collections.abc import Iterator, Mapping
from typing import Any

PRIVATE = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
}
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and restore the whole environment; imports set some too."""
    original = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in os.environ.keys() - original.keys():
            del os.environ[name]
        os.environ.update(original)


@contextlib.contextmanager
def replaced(module: Any, **values: Any) -> Iterator[None]:
    """Set attributes of a module, and restore them."""
    originals = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in originals.items():
            setattr(module, name, value)


@contextlib.contextmanager
def same_random_state() -> Iterator[None]:
    """Restore the random states that lmms-eval seeds."""
    import numpy as np
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _silent_tqdm(*args: Any, **kwargs: Any) -> Any:
    from tqdm import tqdm

    return tqdm(*args, **(kwargs | {"disable": True}))


def _nothing_cached(file_name: str) -> None:
    """Replace lmms-eval's request cache, which would unpickle any file of that name."""


@contextlib.contextmanager
def isolated(*, offline: bool) -> Iterator[None]:
    """Import and run lmms-eval inside this context.

    Its log, its progress bars and the output of tasks are dropped; our own progress bar goes to
    stderr. Its request cache is off, because it consists of pickles.

    Args:
        offline: True if model and data are local, so that nothing may reach the network.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(environment(PRIVATE | (OFFLINE if offline else {})))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(same_random_state())
        from loguru import logger

        logger.disable("lmms_eval")
        stack.callback(logger.enable, "lmms_eval")
        import datasets
        import lmms_eval.api.task
        from PIL import ImageFile

        stack.enter_context(
            replaced(lmms_eval.api.task, tqdm=_silent_tqdm, load_from_cache=_nothing_cached)
        )
        stack.enter_context(replaced(ImageFile, LOAD_TRUNCATED_IMAGES=False))  # it sets True
        if datasets.is_progress_bar_enabled():
            datasets.disable_progress_bars()
            stack.callback(datasets.enable_progress_bars)
        yield
