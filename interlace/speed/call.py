"""The call `interlace.time_to_first_token`: two models, timed side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interlace.data.call_rows import Draw, Rows, draw_rows, pin_rows
from interlace.errors import InputError
from interlace.params.section import validated
from interlace.params.timing import TtftParams
from interlace.sources.pin import open_checkpoint
from interlace.speed.compare import compare_checkpoints
from interlace.speed.requests import timed_rows
from interlace.system.work import work_root


def time_to_first_token(
    dense: Path | str,
    pruned: Path | str,
    rows: Rows | None = None,
    *,
    shapes: Sequence[str] = (),
    requests: int = 8,
    repeats: int = 10,
    warmup: int = 2,
    new_tokens: int = 8,
    batch_sizes: Sequence[int] = (),
    max_interval: float = 0.1,
    seed: int = 0,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Time two models to the first token and to the end, request by request in turn.

    Args:
        dense: hub id or folder; its processor makes the inputs of both.
        pruned: hub id or folder of the model with fewer layers.
        rows: as `measure` takes them, to send as requests.
        shapes: benchmarks whose typical request is timed instead, e.g. AI2D.
        requests: rows to send, requests.
        repeats: timed pairs per request, pairs.
        warmup: untimed pairs per request shape, pairs.
        new_tokens: length of every answer, tokens.
        batch_sizes: batches of one prompt to time as well, prompts.
        max_interval: widest interval of a speedup that is reported, share of the speedup.
        seed: of the draw, the order and the bootstrap.
        dtype: type to compute in; auto: bfloat16 on a GPU, float32 on a CPU.
        trust_remote_code: let the models' own Python code run.

    Returns:
        Times, speedups with intervals and ideals, as `compare_checkpoints` describes them:
        `ttft_speedup`, `ttft_ideal`, `ttft_dense_ms` and so on.

    Raises:
        InputError: neither rows nor shapes, a value out of its range, or rows that cannot be used.
    """
    options = {
        **{"shapes": tuple(shapes), "requests": requests, "repeats": repeats, "warmup": warmup},
        **{"new_tokens": new_tokens, "batch_sizes": tuple(batch_sizes)},
        "max_interval": max_interval,
    }
    values = {"seed": seed, "dtype": dtype, "ttft": options}
    params = validated(TtftParams, values, "time_to_first_token")
    if rows is None and not params.ttft.shapes:
        raise InputError("time_to_first_token: nothing to send; pass rows, or shapes, e.g. AI2D")
    first, second = (
        open_checkpoint(model, trust_remote_code=trust_remote_code) for model in (dense, pruned)
    )
    with work_root(None) as root:
        sent: list[dict[str, Any]] = []
        if rows is not None:
            draw = Draw(16 * requests, seed, with_images=first.architecture.takes_images)
            drawn = draw_rows(pin_rows(rows, root), draw, root / "drawn", root)
            sent = timed_rows(drawn, requests, with_images=draw.with_images)
        return compare_checkpoints(
            first, second, sent, params=params.ttft, seed=seed, dtype=params.dtype
        )
